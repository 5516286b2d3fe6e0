//! Dead letters in the file, for whoever operates on them, the file's owner or another process.
//!
//! Each call has a connection of its own: dropped half-way, it takes its transaction with it. The
//! invariant: a letter leaves `dead` in the transaction that puts it into `waiting`, or drops it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use domain::Timestamp;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::letter::KEY_ID;
use crate::letters::{
    DeadLetter, Fate, LetterCursor, LetterPage, LetterQuery, PAGE_BYTES, PAGE_LETTERS, Reach, Selection, Swept,
};

/// Letters in one transaction: some milliseconds, for which the file's owner waits.
const SLICE: usize = 256;
/// The rest after each slice, and no less than the slice took. The owner waits for the lock by looking again
/// now and then, up to 100 ms apart: without rests it could miss every moment between two slices.
const REST: Duration = Duration::from_millis(25);

/// What an index in the file computes, too.
const CAUSE: &str = "json_extract(headers, '$.\"x-cause\"')";

/// Puts letters back; in milliseconds, when each of them first failed.
const REPLAY: &str = "INSERT INTO waiting (ready_at, lane, failures, first_failed_at, job_id, kind, correlation_id,
        timestamp_s, key_id, signature, traceparent, body)
    SELECT ?, lane, 0, CAST(ROUND(unixepoch(json_extract(headers, '$.\"x-first-failed-at\"'), 'subsec') * 1000) AS INTEGER),
        job_id, kind, correlation_id, timestamp_s, key_id, signature, traceparent, body
    FROM dead WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id";

/// A page, oldest first.
pub(super) async fn page(db: &mut SqliteConnection, query: &LetterQuery) -> Result<LetterPage, sqlx::Error> {
    let after = query.after.as_ref().map_or(0, |cursor| cursor.position);
    let limit = query.limit.clamp(1, PAGE_LETTERS);
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT job_id, kind, headers, body, key_id, id FROM dead WHERE id > ");
    sql.push_bind(after as i64);
    if let Some(cause) = query.cause {
        sql.push(format_args!(" AND {CAUSE} = ")).push_bind(cause.as_str());
    }
    sql.push(" ORDER BY id LIMIT ").push_bind(limit as i64 + 1);
    let mut page = LetterPage { letters: Vec::new(), next: None };
    let (mut bytes, mut last) = (0, after);
    let mut rows = sql.build().fetch(db);
    while let Some(row) = rows.try_next().await? {
        if page.letters.len() == limit || bytes > PAGE_BYTES {
            page.next = Some(LetterCursor { position: last, job_id: String::new() });
            break;
        }
        let letter = letter(&row)?;
        bytes += letter.bytes();
        last = row.try_get::<i64, _>(5)? as u64;
        page.letters.push(letter);
    }
    Ok(page)
}

/// The oldest one with that id.
pub(super) async fn one(db: &mut SqliteConnection, job_id: &str) -> Result<Option<DeadLetter>, sqlx::Error> {
    let sql = "SELECT job_id, kind, headers, body, key_id FROM dead WHERE job_id = ? ORDER BY id LIMIT 1";
    sqlx::query(sql).bind(job_id).fetch_optional(db).await?.as_ref().map(letter).transpose()
}

fn letter(row: &SqliteRow) -> Result<DeadLetter, sqlx::Error> {
    let headers: String = row.try_get(2)?;
    let mut headers: BTreeMap<String, String> =
        serde_json::from_str(&headers).map_err(|error| sqlx::Error::Decode(error.into()))?;
    headers.insert(KEY_ID.to_owned(), row.try_get(4)?);
    Ok(DeadLetter {
        job_id: row.try_get(0)?,
        kind: row.try_get(1)?,
        headers,
        body: row.try_get::<Vec<u8>, _>(3)?.into(),
    })
}

/// Replays or drops, a slice after the other. What dies again meanwhile has a higher number and stays.
pub(super) async fn sweep(
    db: &mut SqliteConnection,
    selection: &Selection,
    fate: Fate,
    reach: Reach,
    now: Timestamp,
) -> Result<Swept, sqlx::Error> {
    let deadline = Instant::now() + reach.within;
    let upto: Option<i64> = sqlx::query_scalar("SELECT MAX(id) FROM dead").fetch_one(&mut *db).await?;
    let Some(upto) = upto else { return Ok(Swept::default()) };
    let mut swept = Swept::default();
    loop {
        let wanted = SLICE.min(reach.letters.saturating_sub(swept.count as usize));
        if wanted == 0 || Instant::now() >= deadline {
            let more = !select(db, selection, upto, 1).await?.is_empty();
            return Ok(Swept { more, ..swept });
        }
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let began = Instant::now();
        let ids = select(&mut transaction, selection, upto, wanted).await?;
        let list = serde_json::to_string(&ids).expect("a list of numbers is JSON");
        if fate == Fate::Replay {
            sqlx::query(REPLAY).bind(now.0).bind(&list).execute(&mut *transaction).await?;
        }
        let sql = "DELETE FROM dead WHERE id IN (SELECT value FROM json_each(?))";
        sqlx::query(sql).bind(&list).execute(&mut *transaction).await?;
        transaction.commit().await?;
        swept.count += ids.len() as u64;
        if ids.len() < wanted {
            return Ok(swept);
        }
        tokio::time::sleep(began.elapsed().max(REST)).await;
    }
}

/// The numbers of the next letters that are meant.
async fn select(
    db: &mut SqliteConnection,
    selection: &Selection,
    upto: i64,
    limit: usize,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT id FROM dead WHERE id <= ");
    sql.push_bind(upto);
    match selection {
        Selection::Ids(ids) => {
            let list = serde_json::to_string(ids).expect("a list of texts is JSON");
            sql.push(" AND job_id IN (SELECT value FROM json_each(").push_bind(list).push("))");
        }
        Selection::Cause(cause) => {
            sql.push(format_args!(" AND {CAUSE} = ")).push_bind(cause.as_str());
        }
        Selection::All => {}
    }
    sql.push(" ORDER BY id LIMIT ").push_bind(limit as i64);
    sql.build_query_scalar().fetch_all(db).await
}
