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

-- Agents whose offerings a client accepts; keys as base64url.
CREATE TABLE agents (
    signing_key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    pinned_at   BIGINT NOT NULL
);

-- An agent's own offerings, or those that a client has fetched.
CREATE TABLE offerings (
    hash         TEXT PRIMARY KEY,
    product      UUID NOT NULL REFERENCES products (id),
    agent        TEXT NOT NULL,
    message      TEXT NOT NULL,
    -- How many more orders the agent takes; a client only knows what was offered.
    supply_left  BIGINT NOT NULL,
    made_at      BIGINT NOT NULL,
    withdrawn_at BIGINT
);

-- Orders, received or sent. `reply` is the agent's signed answer.
CREATE TABLE orders (
    hash       TEXT PRIMARY KEY,
    offering   TEXT NOT NULL REFERENCES offerings (hash),
    client     TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    message    TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'accepted', 'rejected')),
    -- Whether the channel begins with the hold `user`.
    held       SMALLINT NOT NULL,
    reply      TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (client, nonce)
);

CREATE TABLE channels (
    id               UUID PRIMARY KEY,
    product          UUID NOT NULL REFERENCES products (id),
    order_hash       TEXT NOT NULL UNIQUE REFERENCES orders (hash),
    offering         TEXT NOT NULL REFERENCES offerings (hash),
    -- The other party's signing key; and, for an agent, the client's sealing key.
    peer             TEXT NOT NULL,
    peer_sealing     TEXT,
    deposit          BIGINT NOT NULL,
    -- The template the channel was made with; it keeps it when the product's changes.
    access_template  TEXT NOT NULL REFERENCES templates (hash),
    -- The agent: number of the access message to hand out, and that message sealed, once made.
    -- The client: number of the newest verified one, and that message opened.
    access_serial    BIGINT NOT NULL,
    access           TEXT,
    status           TEXT NOT NULL,
    holds            SMALLINT NOT NULL,
    reason           TEXT NOT NULL,
    since            BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    -- What the module has still to be told: the outbox. Written with what caused it.
    command          TEXT CHECK (command IN ('start', 'stop')),
    command_number   BIGINT NOT NULL,
    command_attempts SMALLINT NOT NULL,
    command_due      BIGINT NOT NULL,
    -- By when an activating channel has to be active.
    activate_by      BIGINT,
    -- When the hold `fault` is lifted, and how often in a row it was set.
    fault_until      BIGINT,
    fault_count      SMALLINT NOT NULL,
    -- The client: whether the agent has said that it is over; until then it is told so.
    peer_ended       SMALLINT NOT NULL DEFAULT 0
);

CREATE INDEX channels_live ON channels (product) WHERE status <> 'terminated';
CREATE INDEX channels_followed ON channels (peer_ended) WHERE peer_ended = 0;
CREATE INDEX channels_commands ON channels (command_due) WHERE command IS NOT NULL;
CREATE INDEX channels_activating ON channels (activate_by) WHERE activate_by IS NOT NULL;
CREATE INDEX channels_faulty ON channels (fault_until) WHERE fault_until IS NOT NULL;

-- Every change of a channel's status or holds.
CREATE TABLE channel_changes (
    channel UUID NOT NULL REFERENCES channels (id),
    at      BIGINT NOT NULL,
    status  TEXT NOT NULL,
    holds   SMALLINT NOT NULL,
    reason  TEXT NOT NULL
);

CREATE INDEX changes_of_channel ON channel_changes (channel);

-- Kept in the order of their ids, which rise with time: those being reported lie together.
CREATE TABLE sessions (
    id             UUID PRIMARY KEY,
    channel        UUID NOT NULL REFERENCES channels (id),
    client_address TEXT,
    client_port    INTEGER,
    usage          BIGINT NOT NULL,
    sequence       BIGINT NOT NULL,
    started_at     BIGINT NOT NULL,
    stopped_at     BIGINT
) WITHOUT ROWID;

CREATE INDEX sessions_of_channel ON sessions (channel);
CREATE UNIQUE INDEX sessions_open ON sessions (channel) WHERE stopped_at IS NULL;

-- Nonces of requests that were answered, until their time is over.
CREATE TABLE nonces (
    peer    TEXT NOT NULL,
    nonce   TEXT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (peer, nonce)
);

-- What this node told its clients when it ran last, to notice what has changed since.
CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
