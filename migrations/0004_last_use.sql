-- When channels of before there was money were used last: without it, one that has been in use for
-- long would end as never used.
UPDATE channels SET used_at = COALESCE(
    (SELECT MAX(stopped_at) FROM sessions WHERE sessions.channel = channels.id), 0
) WHERE used_at = 0 AND used > 0;

UPDATE sessions SET used_at = unixepoch() WHERE used_at = 0 AND usage > 0 AND stopped_at IS NULL;
