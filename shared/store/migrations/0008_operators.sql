-- What an account is besides a person: 'admin' may look after dead letters by REST. Not called `role`: versions
-- that run beside this one join users to members and ask for `role`, which must stay the members'.
ALTER TABLE users ADD COLUMN account_role TEXT NOT NULL DEFAULT 'user';
-- Events that were begun and not finished by whoever began them: at the head of a batch, or alone. One
-- that kills its processor is found by that. Few rows for each shard, and none while nobody dies.
CREATE TABLE begun_jobs (
    shard    BIGINT  NOT NULL,
    job_id   UUID    NOT NULL,
    is_alone BOOLEAN NOT NULL,
    count    BIGINT  NOT NULL,
    begun_at BIGINT  NOT NULL,
    PRIMARY KEY (shard, job_id, is_alone)
) /*sqlite WITHOUT ROWID */;
