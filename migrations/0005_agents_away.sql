-- The client: whether the agent was not heard of at all when the cheque was sent last. It is sent
-- again as soon as it is, whatever else was to be waited for.
ALTER TABLE cheques ADD COLUMN away SMALLINT NOT NULL DEFAULT 0;
