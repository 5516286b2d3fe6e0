//! Shard leases: which processor works on which shard of the queues.
//!
//! It decides nothing about who should own what. The invariant: a shard has at most one holder, and
//! a holder that dies, is cut off or stands still for 2 s has lost all its shards.
//!
//! On Postgres a lease is an advisory lock of a session that does nothing else: the server frees it
//! the moment the session ends, and ends the session when it is idle for 2 s. The locks are those
//! with two numbers, (class, key), in the current database; nothing else of ours uses that space:
//!
//! | class | key | means |
//! |---|---|---|
//! | `0x43485348` (CHSH) | shard | its holder owns that shard |
//! | `0x43484C56` (CHLV) | from the holder's id | its holder lives |

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use crate::db::Db;
use crate::{Store, StoreError};

const SHARD_CLASS: i32 = 0x4348_5348;
const LIVE_CLASS: i32 = 0x4348_4C56;

/// Opening the session.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// One question. Shorter than the server's patience, so that we know first.
const TICK_LIMIT: Duration = Duration::from_millis(1500);
/// How long the server waits for a sign of life (milliseconds).
const IDLE_LIMIT_MS: &str = "2000";
/// Keys tried for the sign of life; two holders get the same one about never.
const LIVE_KEYS: i32 = 8;

const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1, $2)";
const HELD: &str = "SELECT classid::bigint, objid::bigint, pid = pg_backend_pid(), pid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint IN ($1, $2)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// How the shards are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Live holders, this one included; at least 1.
    pub live: usize,
    /// The shards this holder has, ascending.
    pub mine: Vec<u16>,
    /// The shards nobody has, ascending.
    pub free: Vec<u16>,
    /// How many shards each live holder has, this one included, in no order.
    pub held: Vec<usize>,
}

/// One holder's leases. Dropping it gives them all up.
#[derive(Debug)]
pub struct ShardLeases {
    shards: u16,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// `None` once the session is lost.
    Session(Option<PgConnection>),
    /// One process alone: what it has not given up is its own.
    Alone(BTreeSet<u16>),
}

impl Store {
    /// Makes a holder, which has nothing yet (embedded: everything). Tick it at least once a second.
    pub async fn shard_leases(&self, holder: Uuid, shards: u16) -> Result<ShardLeases, StoreError> {
        let held = match &self.db {
            Db::Postgres { options, .. } => Held::Session(Some(open_session(options, holder).await?)),
            Db::Sqlite { .. } => Held::Alone((0..shards).collect()),
        };
        Ok(ShardLeases { shards, held })
    }
}

async fn open_session(options: &PgConnectOptions, holder: Uuid) -> Result<PgConnection, StoreError> {
    let options = options.clone().application_name("chatchit leases").options([
        ("idle_session_timeout", IDLE_LIMIT_MS),
        ("tcp_keepalives_idle", "1"),
        ("tcp_keepalives_interval", "1"),
        ("tcp_keepalives_count", "2"),
    ]);
    let open = async {
        let mut session = PgConnection::connect_with(&options).await?;
        let (_, _, _, key) = holder.to_fields_le();
        let first = i32::from_le_bytes([key[4], key[5], key[6], key[7]]);
        for offset in 0..LIVE_KEYS {
            if try_lock(&mut session, LIVE_CLASS, first.wrapping_add(offset)).await? {
                return Ok(session);
            }
        }
        Err(StoreError::Conflict("holder"))
    };
    timeout(CONNECT_LIMIT, open).await.map_err(|_| StoreError::timed_out())?
}

async fn try_lock(session: &mut PgConnection, class: i32, key: i32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(TRY_LOCK).bind(class).bind(key).fetch_one(session).await
}

async fn view(session: &mut PgConnection, shards: u16) -> Result<LeaseView, sqlx::Error> {
    let query = sqlx::query_as(HELD).bind(i64::from(SHARD_CLASS)).bind(i64::from(LIVE_CLASS));
    let locks: Vec<Lock> = query.fetch_all(session).await?;
    let is_shard = |class: i64| class == i64::from(SHARD_CLASS);
    let of_shard = |wanted: u16| locks.iter().find(move |lock| is_shard(lock.0) && lock.1 == i64::from(wanted));
    let shards_of = |pid: i64| locks.iter().filter(|lock| is_shard(lock.0) && lock.3 == pid).count();
    let holders: Vec<i64> = locks.iter().filter(|lock| !is_shard(lock.0)).map(|lock| lock.3).collect();
    Ok(LeaseView {
        live: holders.len().max(1),
        mine: (0..shards).filter(|shard| of_shard(*shard).is_some_and(|lock| lock.2)).collect(),
        free: (0..shards).filter(|shard| of_shard(*shard).is_none()).collect(),
        held: holders.into_iter().map(shards_of).collect(),
    })
}

/// Class, key, whether it is ours, the process of the session that holds it.
type Lock = (i64, i64, bool, i64);

impl ShardLeases {
    /// How the shards are held now. Also keeps the holder alive. After an error all leases are lost
    /// and this value is of no more use.
    pub async fn tick(&mut self) -> Result<LeaseView, StoreError> {
        let shards = self.shards;
        match &mut self.held {
            Held::Session(session) => ask(session, async |session| view(session, shards).await).await,
            Held::Alone(mine) => Ok(LeaseView {
                live: 1,
                mine: mine.iter().copied().collect(),
                free: (0..shards).filter(|shard| !mine.contains(shard)).collect(),
                held: vec![mine.len()],
            }),
        }
    }

    /// Takes a shard if nobody has it; true when this holder has it now.
    pub async fn try_take(&mut self, shard: u16) -> Result<bool, StoreError> {
        // A session may lock twice what it has, and would then have to unlock twice.
        if self.tick().await?.mine.contains(&shard) {
            return Ok(true);
        }
        match &mut self.held {
            Held::Session(session) => {
                ask(session, async |session| try_lock(session, SHARD_CLASS, i32::from(shard)).await).await
            }
            Held::Alone(mine) => Ok(mine.insert(shard) || mine.contains(&shard)),
        }
    }

    /// Gives a shard up; without effect on one this holder does not have.
    pub async fn give_up(&mut self, shard: u16) -> Result<(), StoreError> {
        match &mut self.held {
            Held::Session(session) => {
                let unlock = async |session: &mut PgConnection| {
                    let query = sqlx::query_scalar(UNLOCK).bind(SHARD_CLASS).bind(i32::from(shard));
                    query.fetch_one(session).await
                };
                let _was_held: bool = ask(session, unlock).await?;
            }
            Held::Alone(mine) => {
                mine.remove(&shard);
            }
        }
        Ok(())
    }
}

/// Asks within the limit. Without an answer the session is closed at once: better no lease than one
/// that only the server knows of.
async fn ask<T>(
    held: &mut Option<PgConnection>,
    question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, StoreError> {
    let mut session = held.take().ok_or_else(|| StoreError::Unavailable("the leases are lost".to_owned()))?;
    let answer = timeout(TICK_LIMIT, question(&mut session)).await.map_err(|_| StoreError::timed_out())??;
    *held = Some(session);
    Ok(answer)
}
