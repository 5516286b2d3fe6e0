//! The storing transaction: locks the rooms, loads what is needed to judge, writes all or nothing.
//!
//! It knows no rights and gives no numbers: the caller decides by what was loaded and writes what
//! it decided. The invariant: from `begin` to the end no other transaction changes the rooms that
//! were found, and rooms are locked in the order of their ids, so that batches never deadlock.

use std::collections::{HashMap, HashSet};

use domain::room::RoomKind;
use domain::{JobId, MessageId, Rev, RoomId, Seq, Timestamp, UserId};
use protocol::Code;
use uuid::Uuid;

use crate::db::{Conn, Engine, Tx};
use crate::error::damaged;
use crate::member::read_kind;
use crate::rows::{Rows, RowsSql};
use crate::timeline::EventRecord;
use crate::write::IDLE;
pub use crate::write::{Delete, Edit, NewRoomEvent, Reaction, Refused, Writes};
use crate::{MessageRow, RevEntry, Standing, Store, StoreError, message};

/// What a batch is about. Repeats are harmless.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The rooms to lock.
    pub rooms: Vec<RoomId>,
    /// Whose standing to load: those who act, and those who are acted upon.
    pub actors: Vec<(RoomId, UserId)>,
    /// The messages to load.
    pub messages: Vec<MessageId>,
    /// The jobs that may have been done before.
    pub jobs: Vec<JobId>,
    /// Whose reactions to which messages to load.
    pub reactions: Vec<(MessageId, UserId)>,
    /// The rooms of which to load when their titles were changed last.
    pub titled: Vec<RoomId>,
}

/// A room's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Direct or group; never changes.
    pub kind: RoomKind,
    /// The number of the newest message.
    pub last_seq: Seq,
    /// The number of the newest durable change.
    pub rev: Rev,
    /// The `rev` of the newest change of membership.
    pub epoch: Rev,
}

/// How a job ended that was done before.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all receipts are of the large kind")]
pub enum Receipt {
    /// It was stored.
    Stored {
        /// Where.
        room: RoomId,
        /// The change it made, as it now stands.
        entry: RevEntry,
    },
    /// It was refused.
    Refused(Code),
    /// There was nothing to change.
    Idle,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The rooms that exist, locked.
    pub rooms: HashMap<RoomId, Head>,
    /// The actors who are members.
    pub standings: HashMap<(RoomId, UserId), Standing>,
    /// The messages that exist, tombstones included; without their reactions.
    pub messages: HashMap<MessageId, MessageRow>,
    /// The jobs that were done before.
    pub receipts: HashMap<JobId, Receipt>,
    /// The emoji that those people gave those messages; nothing for who gave none.
    pub reactions: HashMap<(MessageId, UserId), HashSet<String>>,
    /// When those rooms' titles were changed last; nothing for one that has the title it was made with.
    pub titled: HashMap<RoomId, Timestamp>,
}

/// A transaction in progress. Dropping it rolls back.
#[derive(Debug)]
#[must_use = "a batch that is dropped is rolled back"]
pub struct Batch {
    /// What was found; nobody changes it until the batch ends.
    pub loaded: Loaded,
    tx: Tx,
}

// The rows are sorted before they are locked: batches that share rooms wait, but never in a circle.
pub(crate) const LOCK: RowsSql = rows_sql!([1 room uuid]
    "SELECT c.room_id, c.kind, c.last_seq, c.rev, c.epoch FROM room_counters c
     WHERE c.room_id IN (SELECT room FROM given) ORDER BY c.room_id",
    postgres " FOR UPDATE OF c");
macro_rules! standings {
    () => {
        "SELECT m.room_id, m.user_id, c.kind, m.role, u.blocked_at FROM given
     JOIN room_members m ON m.room_id = given.room AND m.user_id = given.member
     JOIN room_counters c ON c.room_id = m.room_id JOIN users u ON u.user_id = m.user_id"
    };
}
// The receipt of a message is the message, for ever; of any other change the change; of a job without effect (refused, or
// nothing to change) its own row.
macro_rules! receipts {
    () => {
        "SELECT given.job, e.room_id, e.rev, e.epoch, e.message_id, e.payload, CAST(NULL AS TEXT) AS code
       FROM given JOIN room_events e ON e.job_id = given.job
     UNION ALL
     SELECT given.job, m.room_id, m.rev, COALESCE(e.epoch, 1), m.message_id, NULL, NULL
       FROM given JOIN messages m ON m.message_id = given.job
       LEFT JOIN room_events e ON e.room_id = m.room_id AND e.rev = m.rev
     UNION ALL
     SELECT given.job, r.room_id, 0, 0, NULL, NULL, r.code FROM given JOIN refused_jobs r ON r.job_id = given.job"
    };
}
pub(crate) const STANDINGS: RowsSql = rows_sql!([1 room uuid, 2 member uuid] standings!());
pub(crate) const RECEIPTS: RowsSql = rows_sql!([1 job uuid] receipts!());
/// Both, for there each statement is a round trip.
pub(crate) const KNOWN: RowsSql = RowsSql {
    postgres: concat!(
        "WITH standing AS (WITH given(room, member) AS (SELECT * FROM UNNEST($1::uuid[], $2::uuid[])) ",
        standings!(),
        "), receipt AS (WITH given(job) AS (SELECT * FROM UNNEST($3::uuid[])) ",
        receipts!(),
        ") SELECT room_id, user_id, kind, role, blocked_at, NULL::uuid AS job, 0::bigint AS rev, 0::bigint AS epoch,
            NULL::uuid AS message_id, NULL::bytea AS payload, NULL AS code FROM standing
        UNION ALL SELECT room_id, NULL, NULL, NULL, NULL, job, rev, epoch, message_id, payload, code FROM receipt"
    ),
    // There round trips cost nothing.
    sqlite: "",
};
const REACTIONS: RowsSql = rows_sql!([1 message uuid, 2 member uuid]
    "SELECT r.message_id, r.user_id, r.emoji FROM given
     JOIN reactions r ON r.message_id = given.message AND r.user_id = given.member");
const TITLED: RowsSql = rows_sql!([1 room uuid]
    "SELECT r.room_id, r.titled_at FROM given JOIN rooms r ON r.room_id = given.room WHERE r.titled_at IS NOT NULL");

#[derive(sqlx::FromRow)]
struct ReceiptRecord {
    job: Uuid,
    room_id: Uuid,
    rev: i64,
    epoch: i64,
    message_id: Option<Uuid>,
    payload: Option<Vec<u8>>,
    code: Option<String>,
}

/// A standing, or a receipt if it has a job.
#[derive(sqlx::FromRow)]
struct KnownRecord {
    room_id: Uuid,
    user_id: Option<Uuid>,
    kind: Option<String>,
    role: Option<String>,
    blocked_at: Option<i64>,
    job: Option<Uuid>,
    rev: i64,
    epoch: i64,
    message_id: Option<Uuid>,
    payload: Option<Vec<u8>>,
    code: Option<String>,
}

impl KnownRecord {
    fn standing(self) -> Result<((RoomId, UserId), Standing), StoreError> {
        let Self { room_id, user_id: Some(user), kind: Some(kind), role: Some(role), blocked_at, .. } = self else {
            return Err(damaged("a standing"));
        };
        Ok(((RoomId(room_id), UserId(user)), Standing::read(&kind, &role, blocked_at)?))
    }

    fn receipt(self) -> Option<ReceiptRecord> {
        let Self { room_id, rev, epoch, message_id, payload, code, .. } = self;
        self.job.map(|job| ReceiptRecord { job, room_id, rev, epoch, message_id, payload, code })
    }
}

impl Store {
    /// Begins a storing transaction over the scope.
    pub async fn begin(&self, scope: &Scope) -> Result<Batch, StoreError> {
        let mut tx = self.db.begin().await?;
        let loaded = Loaded {
            // First the locks: what is read after them is what the last holder left.
            rooms: lock_rooms(&mut tx, &scope.rooms).await?,
            ..load_known(&mut tx, scope).await?
        };
        let loaded = Loaded {
            messages: message::load(&mut tx.conn, distinct(&scope.messages).into_iter()).await?,
            reactions: load_reactions(&mut tx, &scope.reactions).await?,
            titled: load_titled(&mut tx, &scope.titled).await?,
            ..loaded
        };
        Ok(Batch { loaded, tx })
    }

    /// What these people are in these rooms, as it is now; nothing for who is no member.
    pub async fn standings(
        &self,
        actors: &[(RoomId, UserId)],
    ) -> Result<HashMap<(RoomId, UserId), Standing>, StoreError> {
        load_standings(&mut self.db.read().await?, actors).await
    }
}

impl Batch {
    /// Writes everything and commits. `Conflict("message")` or `Conflict("job")`: one of them was
    /// stored meanwhile; nothing was written, begin again.
    pub async fn commit(mut self, writes: Writes) -> Result<(), StoreError> {
        match writes.apply(&mut self.tx).await {
            Ok(()) => self.tx.commit().await,
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                self.tx.roll_back().await?;
                Err(error)
            }
        }
    }
}

fn distinct<T: Copy + Ord>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

async fn lock_rooms(tx: &mut Tx, rooms: &[RoomId]) -> Result<HashMap<RoomId, Head>, StoreError> {
    if rooms.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = Rows::new().id(distinct(rooms).into_iter().map(|room| room.0));
    let found: Vec<(Uuid, String, i64, i64, i64)> = tx.conn.fetch(&LOCK, &rows).await?;
    let head = |(room, kind, last_seq, rev, epoch): (Uuid, String, i64, i64, i64)| {
        let head = Head { kind: read_kind(&kind)?, last_seq: Seq(last_seq), rev: Rev(rev), epoch: Rev(epoch) };
        Ok((RoomId(room), head))
    };
    found.into_iter().map(head).collect()
}

/// Standings and receipts: what nearly every batch asks for.
async fn load_known(tx: &mut Tx, scope: &Scope) -> Result<Loaded, StoreError> {
    if !matches!(tx.conn.engine, Engine::Postgres(_)) || scope.actors.is_empty() || scope.jobs.is_empty() {
        let standings = load_standings(&mut tx.conn, &scope.actors).await?;
        let receipts = load_receipts(tx, &scope.jobs).await?;
        return Ok(Loaded { standings, receipts, ..Loaded::default() });
    }
    let found: Vec<KnownRecord> =
        tx.conn.fetch(&KNOWN, &actor_rows(&scope.actors).beside(job_rows(&scope.jobs))).await?;
    let (receipts, standings): (Vec<_>, Vec<_>) = found.into_iter().partition(|record| record.job.is_some());
    let standings = standings.into_iter().map(KnownRecord::standing).collect::<Result<_, _>>()?;
    let receipts = receipts.into_iter().filter_map(KnownRecord::receipt).collect();
    Ok(Loaded { standings, receipts: read_receipts(tx, receipts).await?, ..Loaded::default() })
}

fn actor_rows(actors: &[(RoomId, UserId)]) -> Rows<'static> {
    let actors = distinct(actors);
    Rows::new().id(actors.iter().map(|(room, _)| room.0)).id(actors.iter().map(|(_, user)| user.0))
}

fn job_rows(jobs: &[JobId]) -> Rows<'static> {
    Rows::new().id(distinct(jobs).into_iter().map(|job| job.0))
}

async fn load_standings(
    conn: &mut Conn,
    actors: &[(RoomId, UserId)],
) -> Result<HashMap<(RoomId, UserId), Standing>, StoreError> {
    if actors.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<(Uuid, Uuid, String, String, Option<i64>)> = conn.fetch(&STANDINGS, &actor_rows(actors)).await?;
    let standing = |(room, user, kind, role, blocked_at): (Uuid, Uuid, String, String, Option<i64>)| {
        Ok(((RoomId(room), UserId(user)), Standing::read(&kind, &role, blocked_at)?))
    };
    found.into_iter().map(standing).collect()
}

async fn load_receipts(tx: &mut Tx, jobs: &[JobId]) -> Result<HashMap<JobId, Receipt>, StoreError> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let found = tx.conn.fetch(&RECEIPTS, &job_rows(jobs)).await?;
    read_receipts(tx, found).await
}

async fn read_receipts(tx: &mut Tx, found: Vec<ReceiptRecord>) -> Result<HashMap<JobId, Receipt>, StoreError> {
    let about = found.iter().filter_map(|record| record.message_id.map(MessageId));
    let messages = message::load(&mut tx.conn, about).await?;
    let mut receipts = HashMap::with_capacity(found.len());
    for record in found {
        let (job, receipt) = (JobId(record.job), record.read(&messages)?);
        // What was stored counts, should a job of two rooms at once have been refused in the other.
        if matches!(receipt, Receipt::Stored { .. }) || !receipts.contains_key(&job) {
            receipts.insert(job, receipt);
        }
    }
    Ok(receipts)
}

async fn load_reactions(
    tx: &mut Tx,
    wanted: &[(MessageId, UserId)],
) -> Result<HashMap<(MessageId, UserId), HashSet<String>>, StoreError> {
    let mut given: HashMap<(MessageId, UserId), HashSet<String>> = HashMap::new();
    if wanted.is_empty() {
        return Ok(given);
    }
    let wanted = distinct(wanted);
    let rows = Rows::new().id(wanted.iter().map(|(message, _)| message.0)).id(wanted.iter().map(|(_, user)| user.0));
    let found: Vec<(Uuid, Uuid, String)> = tx.conn.fetch(&REACTIONS, &rows).await?;
    for (message, user, emoji) in found {
        given.entry((MessageId(message), UserId(user))).or_default().insert(emoji);
    }
    Ok(given)
}

async fn load_titled(tx: &mut Tx, rooms: &[RoomId]) -> Result<HashMap<RoomId, Timestamp>, StoreError> {
    if rooms.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = Rows::new().id(distinct(rooms).into_iter().map(|room| room.0));
    let found: Vec<(Uuid, i64)> = tx.conn.fetch(&TITLED, &rows).await?;
    Ok(found.into_iter().map(|(room, at)| (RoomId(room), Timestamp(at))).collect())
}

impl ReceiptRecord {
    fn read(self, messages: &HashMap<MessageId, MessageRow>) -> Result<Receipt, StoreError> {
        if self.code.as_deref() == Some(IDLE) {
            return Ok(Receipt::Idle);
        }
        if let Some(code) = self.code {
            return Code::parse(&code).map(Receipt::Refused).ok_or_else(|| damaged("a refusal's code"));
        }
        let stored = EventRecord {
            rev: self.rev,
            epoch: self.epoch,
            message_id: self.message_id,
            payload: self.payload.unwrap_or_default(),
        };
        Ok(Receipt::Stored { room: RoomId(self.room_id), entry: stored.read(messages)? })
    }
}
