-- What users wish to be seen as, of those who ever said so. Kept here because Redis may be wiped, and
-- the memory of one process ends with it: whoever hides must not be shown after that.
CREATE TABLE presence_wishes (
    user_id UUID NOT NULL PRIMARY KEY,
    status  TEXT NOT NULL
) /*sqlite WITHOUT ROWID */;
