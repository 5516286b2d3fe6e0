//! The tables and how they come to be: numbered texts that are only ever added to.
//!
//! It knows no rows. The invariant: a text that was released never changes; what it did is changed
//! by a later one.

use std::borrow::Cow;

use config::defect::{Defect, is_on};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr as _};

use crate::StoreError;
use crate::db::Db;

const TEXTS: [(i64, &str, &str); 13] = [
    (1, "base", include_str!("../migrations/0001_base.sql")),
    (2, "refusals", include_str!("../migrations/0002_refusals.sql")),
    (3, "membership", include_str!("../migrations/0003_membership.sql")),
    (4, "departures", include_str!("../migrations/0004_departures.sql")),
    (5, "tail", include_str!("../migrations/0005_tail.sql")),
    (6, "wishes", include_str!("../migrations/0006_wishes.sql")),
    (7, "reads", include_str!("../migrations/0007_reads.sql")),
    (8, "operators", include_str!("../migrations/0008_operators.sql")),
    (9, "departures_expiry", include_str!("../migrations/0009_departures_expiry.sql")),
    (10, "marks", include_str!("../migrations/0010_marks.sql")),
    (11, "tail_places", include_str!("../migrations/0011_tail_places.sql")),
    (12, "titles", include_str!("../migrations/0012_titles.sql")),
    (13, "departed_reads", include_str!("../migrations/0013_departed_reads.sql")),
];

/// The engine's name in comments that cover a clause only it knows.
const POSTGRES: &str = "postgres";
const SQLITE: &str = "sqlite";

const APPLIED: &str = "SELECT MAX(version) FROM _sqlx_migrations WHERE success";

/// Whether everything was applied that this version knows; an error if nothing ever was.
pub(crate) async fn is_current(db: &Db) -> Result<bool, StoreError> {
    let mut conn = db.read().await?;
    let (applied,): (Option<i64>,) = on!(conn, c => sqlx::query_as(APPLIED).fetch_one(c))?;
    Ok(applied.is_some_and(|version| version >= TEXTS.len() as i64))
}

/// Applies what is missing, under a lock that all services share.
pub(crate) async fn run(db: &Db) -> Result<(), StoreError> {
    match db {
        Db::Postgres { options, .. } => {
            // A session of its own: waiting for the lock may take longer than a statement may.
            let options = PgConnectOptions::clone(options).options([("statement_timeout", "0"), ("lock_timeout", "0")]);
            let mut session = sqlx::PgConnection::connect_with(&options).await?;
            migrator(POSTGRES).run_direct(None, &mut session, false).await?;
            if is_on(Defect::NoUniqueKey) {
                sqlx::raw_sql("ALTER TABLE messages DROP CONSTRAINT IF EXISTS messages_pkey")
                    .execute(&mut session)
                    .await?;
            }
            session.close().await?;
        }
        Db::Sqlite { write, .. } => {
            let mut transaction = write.begin_with("BEGIN EXCLUSIVE").await?;
            migrator(SQLITE).run_direct(None, &mut *transaction, false).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}

fn migrator(engine: &str) -> Migrator {
    let migrations = TEXTS.iter().map(|(version, name, text)| {
        let sql = AssertSqlSafe(uncover(text, engine)).into_sql_str();
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // During a rolling upgrade an older service may start after a newer one migrated.
    migrator.set_ignore_missing(true);
    migrator
}

/// Takes the comment marks off the clauses of `engine`: `/*postgres WITH (…) */` becomes `WITH (…)`.
fn uncover(text: &str, engine: &str) -> String {
    let mark = format!("/*{engine} ");
    let mut parts = text.split(mark.as_str());
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(&part.replacen("*/", "", 1));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_sees_its_own_clauses() {
        let text = "a /*postgres p */ b /*sqlite s */ c /* both */";
        assert_eq!(uncover(text, POSTGRES), "a p  b /*sqlite s */ c /* both */");
        assert_eq!(uncover(text, SQLITE), "a /*postgres p */ b s  c /* both */");
    }

    #[test]
    fn every_text_of_the_folder_is_applied() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).expect("it is there");
        assert_eq!(folder.count(), TEXTS.len());
    }

    #[test]
    fn versions_ascend_from_one() {
        for (index, (version, _, _)) in TEXTS.iter().enumerate() {
            assert_eq!(*version, index as i64 + 1);
        }
    }
}
