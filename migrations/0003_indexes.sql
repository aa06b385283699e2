-- What is asked for at every request of a stranger must not take longer the more there is.
CREATE INDEX orders_waiting ON orders (client) WHERE state = 'waiting';
CREATE INDEX nonces_expiry ON nonces (expires);
