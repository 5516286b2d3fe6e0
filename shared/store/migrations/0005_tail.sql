-- The tail of what was committed: one narrow row for each batch, with its rooms (16 bytes) and their
-- revs (8 bytes, big-endian) one after another. Whoever remembers how far he has read learns of every
-- room that moved since, at a cost that follows the batches and not the rooms he knows. Nothing else
-- needs it: rows are removed after minutes.
CREATE TABLE room_changes (
    changed_in
        /*postgres BIGINT NOT NULL DEFAULT CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT) */
        /*sqlite INTEGER PRIMARY KEY AUTOINCREMENT */,
    rooms BYTEA NOT NULL
);
/*postgres CREATE INDEX room_changes_place ON room_changes (changed_in); */
