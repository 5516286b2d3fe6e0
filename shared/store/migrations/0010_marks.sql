-- A read mark that moved has no rev. So that it is found as well where its word was lost, it stands in
-- the tail, in a row of its own: room and user (16 bytes each), seq and time (8 bytes each, big-endian).
ALTER TABLE room_changes ADD COLUMN mark BYTEA;
