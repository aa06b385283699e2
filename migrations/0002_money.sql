-- Money: what a channel has used, what is paid for it, and the cheques.

-- Usage of a channel's closed sessions; that of the open one is added to it.
ALTER TABLE channels ADD COLUMN used BIGINT NOT NULL DEFAULT 0;
-- When a session that is closed was used last.
ALTER TABLE channels ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
-- The agent: balance of the best cheque. The client: the highest balance that it has signed.
ALTER TABLE channels ADD COLUMN paid BIGINT NOT NULL DEFAULT 0;
-- Usage from which on a report has the channel judged at once; none if no usage changes anything.
ALTER TABLE channels ADD COLUMN alarm BIGINT;

UPDATE channels SET used = (
    SELECT COALESCE(SUM(usage), 0) FROM sessions
    WHERE sessions.channel = channels.id AND stopped_at IS NOT NULL
);
-- Without it, a channel that has been in use for long would end as never used.
UPDATE channels SET used_at = COALESCE(
    (SELECT MAX(stopped_at) FROM sessions WHERE sessions.channel = channels.id), 0
) WHERE used > 0;

-- Whether the core itself measures the session, in seconds.
ALTER TABLE sessions ADD COLUMN measured SMALLINT NOT NULL DEFAULT 0;
-- When its usage last grew; for a measured one: the last mark.
ALTER TABLE sessions ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
UPDATE sessions SET used_at = unixepoch() WHERE usage > 0 AND stopped_at IS NULL;

CREATE INDEX sessions_measured ON sessions (id) WHERE measured = 1 AND stopped_at IS NULL;

-- The best cheque of each channel: received by an agent, signed by a client.
CREATE TABLE cheques (
    channel  UUID PRIMARY KEY REFERENCES channels (id),
    balance  BIGINT NOT NULL,
    message  TEXT NOT NULL,
    made_at  BIGINT NOT NULL,
    -- The client: when it is to be sent (again); none once the agent has acknowledged it.
    due      BIGINT,
    -- How often in a row that failed, and what was said last.
    attempts SMALLINT NOT NULL DEFAULT 0,
    trouble  TEXT,
    -- Whether the agent was not heard of at all then: it is sent again as soon as it is, whatever else
    -- was to be waited for.
    away     SMALLINT NOT NULL DEFAULT 0
);

CREATE INDEX cheques_due ON cheques (due) WHERE due IS NOT NULL;

-- The client: what each channel's agent has signed last of it.
CREATE TABLE accounts (
    channel UUID PRIMARY KEY REFERENCES channels (id),
    message TEXT NOT NULL,
    status  TEXT NOT NULL,
    cost    BIGINT NOT NULL,
    paid    BIGINT NOT NULL,
    time    BIGINT NOT NULL,
    -- What this side had measured when it came.
    usage   BIGINT NOT NULL
);
