//! How the databases carry out statements that must not read all there is.
//!
//! Looks at plans only, with no rows. The invariant: a statement's cost follows what it answers.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};
use testkit::folder::Folder;
use testkit::services::fresh_postgres;
use uuid::Uuid;

use crate::db::{Conn, Engine};
use crate::member::{READS, READS_SINCE};
use crate::presence::DIRECT_PARTNERS;
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreSettings};

/// A line of what a database says about how it carries out a statement.
struct Step(String);

impl FromRow<'_, PgRow> for Step {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        row.try_get(0).map(Self)
    }
}

impl FromRow<'_, SqliteRow> for Step {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        row.try_get("detail").map(Self)
    }
}

fn explained(sql: &str, engine: &Engine) -> &'static str {
    let how = if matches!(engine, Engine::Postgres(_)) { "EXPLAIN " } else { "EXPLAIN QUERY PLAN " };
    format!("{how}{sql}").leak()
}

async fn plan(conn: &mut Conn, sql: &RowsSql) -> Vec<String> {
    let (postgres, sqlite) = (explained(sql.postgres, &conn.engine), explained(sql.sqlite, &conn.engine));
    let rows = Rows::new().id([Uuid::nil()]).int([1]);
    let steps: Vec<Step> = conn.fetch(&RowsSql { postgres, sqlite }, &rows).await.expect("a plan");
    steps.into_iter().map(|step| step.0).collect()
}

/// Looks at a connection to each of both databases, without any rows.
async fn on_each(look: impl AsyncFn(&mut Conn)) {
    let folder = Folder::new();
    let sqlite = StoreSettings::Sqlite { path: folder.path().join("chat.sqlite"), sync_full: false };
    let postgres = StoreSettings::Postgres { url: fresh_postgres().await, max_connections: 2 };
    for settings in [sqlite, postgres] {
        let store = Store::open(settings).await.expect("opens");
        store.migrate().await.expect("migrates");
        look(&mut store.db.read().await.expect("a connection")).await;
    }
}

#[tokio::test]
async fn of_members_only_those_who_have_read_since_are_looked_at() {
    on_each(async |conn| {
        let mut steps = plan(conn, &READS_SINCE).await;
        let newest = explained(READS, &conn.engine);
        let more: Result<Vec<Step>, _> =
            on!(*conn, c => sqlx::query_as::<_, Step>(newest).bind(Uuid::nil()).bind(10_i64).fetch_all(c));
        steps.extend(more.expect("a plan").into_iter().map(|step| step.0));
        let of_members = |step: &&String| step.contains("room_members") || step.contains("SEARCH m ");
        let of_members: Vec<&String> = steps.iter().filter(of_members).collect();
        assert_eq!(of_members.len(), 2, "{of_members:?}");
        assert!(of_members.iter().all(|step| step.contains("room_members_read")), "{of_members:?}");
    })
    .await;
}

#[tokio::test]
async fn of_somebodys_direct_rooms_no_more_are_read_than_are_wanted() {
    on_each(async |conn| {
        let steps = plan(conn, &DIRECT_PARTNERS).await;
        assert!(steps.iter().any(|step| step.contains("room_members_user")), "{steps:?}");
        // Whatever sorts or numbers rows has read them all.
        let reads_all = |step: &String| ["Sort", "WindowAgg", "TEMP B-TREE"].iter().any(|sign| step.contains(sign));
        assert!(!steps.iter().any(reads_all), "{steps:?}");
    })
    .await;
}
