-- Credit: how far a module may serve until its next report is acknowledged.

-- Usage up to which the channel may be used while no more is paid; none if there is no such limit.
ALTER TABLE channels ADD COLUMN use_limit BIGINT;
-- The most that may be used until a report is acknowledged, where it is less than the setting
-- channels.max_unreported.
ALTER TABLE channels ADD COLUMN use_step BIGINT;
