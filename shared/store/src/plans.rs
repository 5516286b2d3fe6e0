//! How the databases carry out statements that must not read all there is.
//!
//! Looks at plans, and on Postgres at the pages that are read; never at time. The invariant: a statement's cost
//! follows what it answers, however many messages and rooms there are.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};
use testkit::folder::Folder;
use testkit::services::fresh_postgres;
use uuid::Uuid;

use crate::batch::{KNOWN, LOCK, RECEIPTS, STANDINGS};
use crate::change::ROOMS_OF;
use crate::db::{Conn, Engine};
use crate::member::{READS, READS_OF, READS_SINCE};
use crate::message::{self, MANY};
use crate::presence::DIRECT_PARTNERS;
use crate::room::{CONVERSATIONS, ROOM_STATES};
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreSettings, timeline};

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
    steps(conn, sql, &Rows::new().id([Uuid::nil()]).int([1])).await
}

async fn steps(conn: &mut Conn, sql: &RowsSql, rows: &Rows<'_>) -> Vec<String> {
    let (postgres, sqlite) = (explained(sql.postgres, &conn.engine), explained(sql.sqlite, &conn.engine));
    let steps: Vec<Step> = conn.fetch(&RowsSql { postgres, sqlite }, rows).await.expect("a plan");
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
        if matches!(conn.engine, Engine::Postgres(_)) {
            steps.extend(plan(conn, &READS_OF).await);
        } else {
            let newest = explained(READS, &conn.engine);
            let more: Result<Vec<Step>, _> =
                on!(*conn, c => sqlx::query_as::<_, Step>(newest).bind(Uuid::nil()).bind(10_i64).fetch_all(c));
            steps.extend(more.expect("a plan").into_iter().map(|step| step.0));
        }
        let of_members = |step: &&String| {
            let reads = step.contains("Scan") || step.contains("SEARCH") || step.contains("SCAN");
            reads && (step.contains("room_members") || step.contains("SEARCH m "))
        };
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

/// Rooms `$1` to `$2`, each with ten members of a thousand users and `$3` messages. Ids are numbers.
const FILL: [&str; 5] = [
    "INSERT INTO room_counters (room_id, last_seq, rev, epoch, kind)
     SELECT lpad(to_hex(r), 32, '0')::uuid, $3, $3 + 1, 1, 'group' FROM generate_series($1, $2) r",
    "INSERT INTO rooms (room_id, created_by, created_at)
     SELECT lpad(to_hex(r), 32, '0')::uuid, lpad('1', 32, '0')::uuid, $3 FROM generate_series($1, $2) r",
    "INSERT INTO messages (message_id, room_id, seq, rev, sender_id, sent_at, stored_at, changed_at, client_msg_id,
        kind, content)
     SELECT lpad(to_hex(s * 100000 + r), 32, '0')::uuid, lpad(to_hex(r), 32, '0')::uuid, s, s + 1,
        lpad('1', 32, '0')::uuid, s, s, s, 'c' || s, 'TEXT', repeat('x', 100)
     FROM generate_series(1, $3) s, generate_series($1, $2) r",
    "INSERT INTO room_events (room_id, rev, epoch, happened_at, message_id, payload)
     SELECT lpad(to_hex(r), 32, '0')::uuid, s + 1, 1, s, lpad(to_hex(s * 100000 + r), 32, '0')::uuid, ''
     FROM generate_series(1, $3) s, generate_series($1, $2) r",
    "INSERT INTO room_members (room_id, user_id, role, joined_seq, read_seq)
     SELECT lpad(to_hex(r), 32, '0')::uuid, lpad(to_hex((r * 7 + m) % 1000), 32, '0')::uuid, 'member', 0, $3
     FROM generate_series($1, $2) r, generate_series(1, 10) m",
];
const USERS: &str = "INSERT INTO users (user_id, first_name, last_name, created_at, tokens_valid_after)
     SELECT lpad(to_hex(u), 32, '0')::uuid, '', '', 0, 0 FROM generate_series(0, 999) u";
/// Messages of a room.
const MESSAGES: i64 = 40;

async fn fill(conn: &mut Conn, from: i64, to: i64) {
    for sql in FILL {
        run!(*conn, sql, from, to, MESSAGES).expect("filled");
    }
    run!(*conn, "VACUUM ANALYZE").expect("counted");
}

/// Statements of the hot path and of clients that catch up: for 20 rooms, messages or people, or a page of one.
async fn statements(conn: &mut Conn) -> Vec<(&'static str, Vec<String>)> {
    let ids = |from: u128| (from..from + 20).map(Uuid::from_u128);
    let nobody = || (0..20).map(|_| Uuid::from_u128(8));
    let many = [
        ("lock", &LOCK, Rows::new().id(ids(1))),
        ("standings", &STANDINGS, Rows::new().id(ids(1)).id(nobody())),
        ("receipts", &RECEIPTS, Rows::new().id(ids(200_001))),
        ("messages", &MANY, Rows::new().id(ids(200_001))),
        ("room states", &ROOM_STATES, Rows::new().id(ids(1)).id(nobody())),
        ("all rooms of some", &ROOMS_OF, Rows::new().id((1..4).map(Uuid::from_u128))),
    ];
    let mut found = Vec::new();
    for (name, sql, rows) in many {
        found.push((name, steps(conn, sql, &rows).await));
    }
    if matches!(conn.engine, Engine::Postgres(_)) {
        let rows = Rows::new().id(ids(1)).id(nobody()).id(ids(200_001));
        found.push(("standings and receipts", steps(conn, &KNOWN, &rows).await));
    }
    let room = Uuid::from_u128(1);
    for (name, sql, from) in
        [("history", message::BEFORE, MESSAGES), ("history, on", message::AFTER, 1), ("timeline", timeline::AFTER, 1)]
    {
        let sql = explained(sql, &conn.engine);
        let page: Result<Vec<Step>, _> = on!(*conn, c => {
            sqlx::query_as::<_, Step>(sql).bind(room).bind(from).bind(20_i64).bind(100_000_i64).fetch_all(c)
        });
        found.push((name, page.expect("a plan").into_iter().map(|step| step.0).collect()));
    }
    let (page, user) = (explained(CONVERSATIONS, &conn.engine), Uuid::from_u128(8));
    let page: Result<Vec<Step>, _> = on!(*conn, c => {
        sqlx::query_as::<_, Step>(page).bind(user).bind(Uuid::nil()).bind(20_i64).fetch_all(c)
    });
    found.push(("a page of one's rooms", page.expect("a plan").into_iter().map(|step| step.0).collect()));
    found
}

#[tokio::test]
async fn no_statement_of_the_hot_path_looks_through_a_table() {
    on_each(async |conn| {
        if matches!(conn.engine, Engine::Postgres(_)) {
            run!(*conn, USERS).expect("filled");
            fill(conn, 1, 2_000).await;
        }
        for (name, steps) in statements(conn).await {
            let looks_through = |step: &&String| {
                let is_table = |table: &str| step.contains(table);
                let tables = ["messages", "room_events", "room_members", "room_counters", "rooms"];
                // SQLite scans what was given, and what it has found so far.
                (step.contains("Seq Scan") && tables.into_iter().any(is_table))
                    || (step.starts_with("SCAN ")
                        && !["given", "json_each", "sums", "page", "(subquery"].into_iter().any(is_table))
            };
            let wrong: Vec<&String> = steps.iter().filter(looks_through).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?} in {steps:#?}");
        }
    })
    .await;
}
