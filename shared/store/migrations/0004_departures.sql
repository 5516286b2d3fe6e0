-- Who left or was removed, and by which change: whoever catches up without having been there is told so.
-- One row for each person and room, the latest departure.
CREATE TABLE room_departures (
    user_id UUID   NOT NULL,
    room_id UUID   NOT NULL,
    rev     BIGINT NOT NULL,
    left_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id)
) /*sqlite WITHOUT ROWID */;
