//! Sessions of a Postgres that end in the middle of their work.
//!
//! The invariant: only clients' sessions of the named database are ended, and never the one that asks.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::{Instant, sleep};

/// How often transactions are looked for: most last longer than a few milliseconds.
const BETWEEN_CUTS: Duration = Duration::from_millis(5);

/// Chosen first, ended then: among conditions, Postgres may ask the last one first, of every session.
const CUT: &str = "with chosen as materialized (
        select pid, backend_start::text as since from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
            and ($1 or (xact_start is not null and state <> 'idle'))
    ) select pid, since from chosen where pg_terminate_backend(pid)";

/// Ends, over and over for that long, every session that is in a transaction at that moment, between
/// its statements or within one. Returns how many sessions these were.
pub async fn cut_transactions(url: &str, for_how_long: Duration) -> Result<u64, sqlx::Error> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let end = Instant::now() + for_how_long;
    let mut sessions = HashSet::new();
    while Instant::now() < end {
        // One that is ending is still listed for a moment.
        sessions.extend(cut(&mut connection, false).await?);
        sleep(BETWEEN_CUTS).await;
    }
    connection.close().await?;
    Ok(sessions.len() as u64)
}

/// Ends all sessions of that database at once. Returns how many these were.
pub async fn cut_sessions(url: &str) -> Result<u64, sqlx::Error> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let sessions = cut(&mut connection, true).await?;
    connection.close().await?;
    Ok(sessions.len() as u64)
}

/// A session: its process id, and when it began.
type Session = (i32, String);

async fn cut(connection: &mut sqlx::PgConnection, idle_too: bool) -> Result<Vec<Session>, sqlx::Error> {
    sqlx::query_as(CUT).bind(idle_too).fetch_all(connection).await
}
