-- With what standalone modules show who they are: the SHA-256 of each product's token, in hex.
CREATE TABLE tokens (
    product UUID PRIMARY KEY REFERENCES products (id),
    hash    TEXT NOT NULL,
    made_at BIGINT NOT NULL
);
