-- How far somebody had read who left, and when: who comes back stands there again, so that a read mark never moves
-- backward.
ALTER TABLE room_departures ADD COLUMN read_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE room_departures ADD COLUMN read_at BIGINT;
