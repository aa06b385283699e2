-- What one core knows. Times are Unix seconds; ids are UUIDs; usage is in smallest units.

CREATE TABLE templates (
    hash          TEXT PRIMARY KEY,
    kind          TEXT NOT NULL CHECK (kind IN ('access', 'offering')),
    document      TEXT NOT NULL,
    registered_at BIGINT NOT NULL
);

CREATE TABLE products (
    id                UUID PRIMARY KEY,
    name              TEXT NOT NULL,
    role              TEXT NOT NULL CHECK (role IN ('agent', 'client')),
    version           TEXT NOT NULL,
    usage_reporting   TEXT NOT NULL CHECK (usage_reporting IN ('total', 'incremental')),
    access_template   TEXT NOT NULL REFERENCES templates (hash),
    offering_template TEXT REFERENCES templates (hash),
    -- What the module set with SetProductConfig: an object of strings, without externalIP.
    config            TEXT NOT NULL,
    external_ip       TEXT,
    registered_at     BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL
);

CREATE TABLE channels (
    id              UUID PRIMARY KEY,
    product         UUID NOT NULL REFERENCES products (id),
    -- The template the channel was made with; it keeps it when the product's changes.
    access_template TEXT NOT NULL REFERENCES templates (hash),
    status          TEXT NOT NULL,
    holds           SMALLINT NOT NULL,
    reason          TEXT NOT NULL,
    since           BIGINT NOT NULL,
    created_at      BIGINT NOT NULL
);

CREATE INDEX channels_live ON channels (product) WHERE status <> 'terminated';

CREATE TABLE sessions (
    id             UUID PRIMARY KEY,
    channel        UUID NOT NULL REFERENCES channels (id),
    client_address TEXT,
    client_port    INTEGER,
    usage          BIGINT NOT NULL,
    sequence       BIGINT NOT NULL,
    started_at     BIGINT NOT NULL,
    stopped_at     BIGINT
);

CREATE INDEX sessions_of_channel ON sessions (channel);
CREATE UNIQUE INDEX sessions_open ON sessions (channel) WHERE stopped_at IS NULL;
