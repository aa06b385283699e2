-- When the client has cancelled an order. On a client it is set before the agent knows of it: until
-- the agent has answered, the order is still `waiting`; then it is `rejected`, or `accepted` where
-- the agent was faster.
ALTER TABLE orders ADD COLUMN cancelled_at BIGINT;
