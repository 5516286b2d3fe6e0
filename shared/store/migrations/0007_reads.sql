-- Who catches up asks for the read marks that moved since a moment, in all rooms at once: without this
-- every member of every room would be looked at. Only who has read anything stands in it.
CREATE INDEX room_members_read ON room_members (room_id, read_at) WHERE read_at IS NOT NULL;
