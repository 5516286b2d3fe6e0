-- When a room's title was last changed, so that one that was given up before that and is tried again later does
-- not take its place. NULL: not since this column is there, or never.
ALTER TABLE rooms ADD COLUMN titled_at BIGINT;
