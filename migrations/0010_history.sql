-- What is over costs nothing while nothing happens to it, and lists are read in pages.

-- Whether nothing is left to be done about a channel's money: it is over on both sides, and what is owed
-- is signed. Any change that money depends on takes it back.
ALTER TABLE channels ADD COLUMN settled SMALLINT NOT NULL DEFAULT 0;

-- `settled` comes first as well, or the database would rather walk over all ids.
CREATE INDEX channels_unsettled ON channels (settled, id) WHERE settled = 0;
CREATE INDEX channels_by_time ON channels (created_at, id);
CREATE INDEX orders_by_time ON orders (created_at, hash);
CREATE INDEX offerings_by_time ON offerings (made_at, hash);
CREATE INDEX cheques_by_time ON cheques (made_at, channel);
CREATE INDEX orders_undecided ON orders (state, created_at, hash) WHERE state = 'waiting';
