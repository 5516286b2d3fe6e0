-- One text for both databases. Times are milliseconds since 1970 (BIGINT). A clause that only one of
-- them knows stands in a comment that begins with its name; the migrator uncovers it there.
--
-- Columns of the hot path carry no foreign keys: checking them would lock rows of users and rooms
-- with every message. Rights, and thereby existence, are judged inside the storing transaction.

CREATE TABLE users (
    user_id            UUID    NOT NULL PRIMARY KEY,
    email              TEXT,
    password_hash      TEXT,
    first_name         TEXT    NOT NULL,
    last_name          TEXT    NOT NULL,
    phone              TEXT,
    created_at         BIGINT  NOT NULL,
    blocked_at         BIGINT,
    tokens_valid_after BIGINT  NOT NULL
);
CREATE UNIQUE INDEX users_email ON users (email);

-- A family lives from a login to a logout; ending it removes its tokens with it.
CREATE TABLE refresh_families (
    family     UUID   NOT NULL PRIMARY KEY,
    user_id    UUID   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX refresh_families_user ON refresh_families (user_id);
CREATE INDEX refresh_families_expiry ON refresh_families (expires_at);

CREATE TABLE refresh_tokens (
    token_hash BYTEA  NOT NULL PRIMARY KEY,
    family     UUID   NOT NULL REFERENCES refresh_families (family) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE rooms (
    room_id    UUID   NOT NULL PRIMARY KEY,
    title      TEXT,
    created_by UUID   NOT NULL,
    created_at BIGINT NOT NULL
);

-- The narrow row that every batch locks and changes: half of each page stays free, so that its new
-- versions lie beside the old ones and no index changes.
CREATE TABLE room_counters (
    room_id  UUID   NOT NULL PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    rev      BIGINT NOT NULL,
    epoch    BIGINT NOT NULL,
    kind     TEXT   NOT NULL
) /*postgres WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05) */ /*sqlite WITHOUT ROWID */;

CREATE TABLE room_members (
    room_id    UUID   NOT NULL,
    user_id    UUID   NOT NULL,
    role       TEXT   NOT NULL,
    joined_seq BIGINT NOT NULL,
    read_seq   BIGINT NOT NULL,
    read_at    BIGINT,
    PRIMARY KEY (room_id, user_id)
) /*postgres WITH (fillfactor = 80) */ /*sqlite WITHOUT ROWID */;
CREATE INDEX room_members_user ON room_members (user_id, room_id);

-- Of a message that was taken back the row stays as a tombstone with its contents erased.
CREATE TABLE messages (
    message_id    UUID   NOT NULL PRIMARY KEY,
    room_id       UUID   NOT NULL,
    seq           BIGINT NOT NULL,
    rev           BIGINT NOT NULL,
    sender_id     UUID   NOT NULL,
    reply_to      UUID,
    sent_at       BIGINT NOT NULL,
    stored_at     BIGINT NOT NULL,
    edited_at     BIGINT,
    deleted_at    BIGINT,
    changed_at    BIGINT NOT NULL,
    client_msg_id TEXT   NOT NULL,
    kind          TEXT   NOT NULL,
    content       TEXT   NOT NULL,
    mentions      BYTEA,
    attachments   BYTEA
);
CREATE UNIQUE INDEX messages_room_seq ON messages (room_id, seq);

CREATE TABLE reactions (
    message_id UUID   NOT NULL,
    user_id    UUID   NOT NULL,
    emoji      TEXT   NOT NULL,
    reacted_at BIGINT NOT NULL,
    PRIMARY KEY (message_id, user_id, emoji)
) /*sqlite WITHOUT ROWID */;

-- Every durable change of a room. What was said stands in `messages` alone: a new message's payload
-- is empty, an edit's has no content.
CREATE TABLE room_events (
    room_id     UUID   NOT NULL,
    rev         BIGINT NOT NULL,
    epoch       BIGINT NOT NULL,
    happened_at BIGINT NOT NULL,
    message_id  UUID,
    job_id      UUID,
    payload     BYTEA  NOT NULL,
    PRIMARY KEY (room_id, rev)
) /*sqlite WITHOUT ROWID */;
CREATE UNIQUE INDEX room_events_job ON room_events (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE refused_jobs (
    job_id     UUID   NOT NULL PRIMARY KEY,
    room_id    UUID   NOT NULL,
    code       TEXT   NOT NULL,
    refused_at BIGINT NOT NULL
) /*sqlite WITHOUT ROWID */;
