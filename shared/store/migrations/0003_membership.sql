-- `membership` counts the changes of a user's set of rooms and of the roles there: whoever knows another
-- number knows other rooms. `changed_in` says in which change of the database the account's rights or its
-- membership changed last, whoever changed them: the number of the transaction, or where there is one
-- writer a number of our own. Whoever remembers how far he has looked finds what came since by the index.
ALTER TABLE users ADD COLUMN membership BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN changed_in BIGINT NOT NULL DEFAULT 0;
CREATE INDEX users_changed ON users (changed_in, user_id) WHERE changed_in > 0;

/*postgres CREATE FUNCTION users_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_in := CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT);
    RETURN NEW;
END $$;
CREATE TRIGGER users_change BEFORE UPDATE OF blocked_at, tokens_valid_after, membership ON users
    FOR EACH ROW EXECUTE FUNCTION users_note_change();
*/
/*sqlite CREATE TRIGGER users_change AFTER UPDATE OF blocked_at, tokens_valid_after, membership ON users
BEGIN
    UPDATE users SET changed_in = 1 + COALESCE((SELECT changed_in FROM users
        WHERE changed_in > 0 ORDER BY changed_in DESC LIMIT 1), 0)
    WHERE user_id = NEW.user_id;
END;
*/
