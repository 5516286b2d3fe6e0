-- Where the tail stood when, a row for each minute of the last ten or so: what lies before the place of ten
-- minutes ago is removed, by whichever processor comes along, however short its own life.
CREATE TABLE tail_places (
    noted_at BIGINT NOT NULL PRIMARY KEY,
    place    BIGINT NOT NULL
);
