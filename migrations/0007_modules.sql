-- What is known of the libraries of modules, by their SHA-256, and what the operator said of modules.

CREATE TABLE libraries (
    hash    TEXT PRIMARY KEY,
    -- The module's name.
    module  TEXT NOT NULL,
    -- When it came up last; never, where there is none.
    up_at   BIGINT,
    -- How often in a row the host was gone, for a reason that is not known, while it came up.
    deaths  SMALLINT NOT NULL DEFAULT 0
);

-- What a library is being told to do: written before, removed after. What is here when the host starts
-- was under way when it ended.
CREATE TABLE library_steps (
    module   TEXT PRIMARY KEY,
    library  TEXT NOT NULL,
    step     TEXT NOT NULL,
    begun_at BIGINT NOT NULL
);

-- Ends of the host that count against a library.
CREATE TABLE library_crashes (
    library TEXT NOT NULL,
    at      BIGINT NOT NULL
);

CREATE INDEX crashes_of_library ON library_crashes (library, at);

-- Libraries that are set aside: until the file is another one, the host is another version, or the
-- operator releases it.
CREATE TABLE quarantine (
    library      TEXT PRIMARY KEY,
    module       TEXT NOT NULL,
    -- What happened, as a sentence.
    reason       TEXT NOT NULL,
    host_version TEXT NOT NULL,
    since        BIGINT NOT NULL
);

-- Modules that the operator has switched off.
CREATE TABLE modules_disabled (
    module TEXT PRIMARY KEY,
    since  BIGINT NOT NULL
);
