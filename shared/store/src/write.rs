//! What a batch writes: rows decided by the caller.
//!
//! It decides nothing. The invariants: every statement takes any number of rows, so that a batch
//! costs the same few round trips however many events it holds; and what is unique over all rooms is
//! inserted in the order of its ids, so that batches of different rooms never wait in a circle.

use std::collections::HashMap;
use std::hash::Hash;

use domain::room::Role;
use domain::{JobId, MessageId, Rev, RoomId, Seq, Timestamp, UserId};
use prost::Message as _;
use protocol::wire::{MessageFailed, ServerEvent};
use protocol::{Code, EventData};
use uuid::Uuid;

use crate::db::{Engine, Tx};
use crate::rows::{Rows, RowsSql};
use crate::{Head, MessageRow, StoreError, change, departure, tail};

/// Everything a batch writes, applied in the order of the fields. Where the fields cannot say in
/// which order two events of the batch came, the caller has netted them: who was added and then
/// removed stands in `left` alone; who was removed and then added stands in both.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    /// New messages.
    pub messages: Vec<MessageRow>,
    /// New contents, also of messages of this batch; the last one of a message counts.
    pub edits: Vec<Edit>,
    /// Reactions given and taken back; the last one of (message, user, emoji) counts.
    pub reactions: Vec<Reaction>,
    /// Messages taken back.
    pub deletes: Vec<Delete>,
    /// Every durable change.
    pub events: Vec<NewRoomEvent>,
    /// The new counters of every room that changed.
    pub heads: Vec<(RoomId, Head)>,
    /// Who is no member any more.
    pub left: Vec<(RoomId, UserId)>,
    /// Who became a member, and the room's `last_seq` then.
    pub joined: Vec<(RoomId, UserId, Role, Seq)>,
    /// New titles, and since when; the last one of a room counts.
    pub titles: Vec<(RoomId, String, Timestamp)>,
    /// Jobs that were refused, so that a repeat gets the same answer.
    pub refused: Vec<Refused>,
    /// Jobs that had nothing to change, so that a repeat has nothing to change either.
    pub idle: Vec<(JobId, RoomId, Timestamp)>,
}

/// A job that was refused for good.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The job.
    pub job: JobId,
    /// Where.
    pub room: RoomId,
    /// Whose.
    pub actor: UserId,
    /// Why.
    pub code: Code,
    /// When.
    pub at: Timestamp,
    /// What the actor is told.
    pub failure: MessageFailed,
}

/// New content for a message; without effect on one that was taken back.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Which.
    pub message: MessageId,
    /// What it says now.
    pub content: String,
    /// When.
    pub at: Timestamp,
}

/// A message taken back: its content, attachments, mentions and reactions are erased.
#[derive(Debug, Clone)]
pub struct Delete {
    /// Which.
    pub message: MessageId,
    /// When.
    pub at: Timestamp,
}

/// A reaction given or taken back.
#[derive(Debug, Clone)]
pub struct Reaction {
    /// To which message.
    pub message: MessageId,
    /// By whom.
    pub user: UserId,
    /// Which emoji.
    pub emoji: String,
    /// True: taken back.
    pub removed: bool,
    /// When.
    pub at: Timestamp,
}

/// One durable change of a room.
#[derive(Debug, Clone)]
pub struct NewRoomEvent {
    /// Where.
    pub room: RoomId,
    /// Its number.
    pub rev: Rev,
    /// The `rev` of the newest change of membership, this one included.
    pub epoch: Rev,
    /// Its receipt; `None` for a new message, whose id is its receipt.
    pub job: Option<JobId>,
    /// The new message: the event is rebuilt from it and `payload` is empty.
    pub message: Option<MessageId>,
    /// The encoded `wire::ServerEvent` of any other change.
    pub payload: Vec<u8>,
    /// When.
    pub at: Timestamp,
}

const MESSAGES: RowsSql = rows_sql!(
    [1 id uuid, 2 room uuid, 3 seq bigint, 4 rev bigint, 5 sender uuid, 6 reply uuid, 7 sent bigint, 8 stored bigint,
     9 edited bigint, 10 deleted bigint, 11 changed bigint, 12 name text, 13 type text, 14 content text,
     15 mentions bytea, 16 attachments bytea]
    "INSERT INTO messages (message_id, room_id, seq, rev, sender_id, reply_to, sent_at, stored_at, edited_at,
        deleted_at, changed_at, client_msg_id, kind, content, mentions, attachments)
     SELECT * FROM given WHERE NOT EXISTS (SELECT 1 FROM refused_jobs WHERE refused_jobs.job_id = given.id)
     ON CONFLICT DO NOTHING");
const EDITS: RowsSql = rows_sql!([1 id uuid, 2 content text, 3 at bigint]
    "UPDATE messages SET content = given.content, edited_at = given.at, changed_at = given.at
     FROM given WHERE message_id = given.id AND deleted_at IS NULL");
const REACT: RowsSql = rows_sql!([1 message uuid, 2 member uuid, 3 emoji text, 4 at bigint]
    "INSERT INTO reactions (message_id, user_id, emoji, reacted_at)
     SELECT message, member, emoji, at FROM given WHERE true ON CONFLICT DO NOTHING");
const UNREACT: RowsSql = rows_sql!([1 message uuid, 2 member uuid, 3 emoji text]
    "DELETE FROM reactions WHERE (message_id, user_id, emoji) IN (SELECT message, member, emoji FROM given)");
const DELETES: RowsSql = rows_sql!([1 id uuid, 2 at bigint]
    "UPDATE messages SET content = '', mentions = NULL, attachments = NULL, reply_to = NULL,
        deleted_at = given.at, changed_at = given.at
     FROM given WHERE message_id = given.id AND deleted_at IS NULL");
const UNREACT_ALL: RowsSql = rows_sql!([1 id uuid]
    "DELETE FROM reactions WHERE message_id IN (SELECT id FROM given)");
const EVENTS: RowsSql = rows_sql!(
    [1 room uuid, 2 rev bigint, 3 epoch bigint, 4 at bigint, 5 message uuid, 6 job uuid, 7 payload bytea]
    "INSERT INTO room_events (room_id, rev, epoch, happened_at, message_id, job_id, payload)
     SELECT * FROM given WHERE true ON CONFLICT DO NOTHING");
/// [`MESSAGES`], [`EVENTS`] and the heads with the tail; how many messages and events were written.
const TOGETHER: RowsSql = RowsSql {
    postgres: "WITH said AS (INSERT INTO messages (message_id, room_id, seq, rev, sender_id, reply_to, sent_at, stored_at,
            edited_at, deleted_at, changed_at, client_msg_id, kind, content, mentions, attachments)
        SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::uuid[], $6::uuid[], $7::bigint[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::bytea[],
            $16::bytea[]) AS given(id)
        WHERE NOT EXISTS (SELECT 1 FROM refused_jobs WHERE refused_jobs.job_id = given.id)
        ON CONFLICT DO NOTHING RETURNING 1),
    told AS (INSERT INTO room_events (room_id, rev, epoch, happened_at, message_id, job_id, payload)
        SELECT * FROM UNNEST($17::uuid[], $18::bigint[], $19::bigint[], $20::bigint[], $21::uuid[], $22::uuid[],
            $23::bytea[])
        ON CONFLICT DO NOTHING RETURNING 1),
    given(room, seq, rev, epoch) AS (SELECT * FROM UNNEST($24::uuid[], $25::bigint[], $26::bigint[], $27::bigint[])),
    heads AS (UPDATE room_counters SET last_seq = given.seq, rev = given.rev, epoch = given.epoch
        FROM given WHERE room_id = given.room),
    tail AS (INSERT INTO room_changes (rooms)
        SELECT string_agg(uuid_send(room) || int8send(rev), ''::bytea) FROM given HAVING COUNT(*) > 0)
    SELECT (SELECT COUNT(*) FROM said), (SELECT COUNT(*) FROM told)",
    // There round trips cost nothing.
    sqlite: "",
};
const STAY: RowsSql = rows_sql!([1 room uuid, 2 member uuid]
    "UPDATE room_members SET read_seq = read_seq WHERE (room_id, user_id) IN (SELECT room, member FROM given)");
const LEFT: RowsSql = rows_sql!([1 room uuid, 2 member uuid]
    "DELETE FROM room_members WHERE (room_id, user_id) IN (SELECT room, member FROM given)");
const JOINED: RowsSql = rows_sql!([1 room uuid, 2 member uuid, 3 role text, 4 seq bigint]
    "INSERT INTO room_members (room_id, user_id, role, joined_seq, read_seq, read_at)
     SELECT room, member, role, seq, COALESCE(before.read_seq, 0), before.read_at FROM given
        LEFT JOIN room_departures before ON before.user_id = member AND before.room_id = room
     WHERE true ON CONFLICT DO NOTHING");
const TITLES: RowsSql = rows_sql!([1 room uuid, 2 title text, 3 at bigint]
    "UPDATE rooms SET title = given.title, titled_at = given.at FROM given WHERE room_id = given.room");
const REFUSED: RowsSql = rows_sql!(
    [1 job uuid, 2 room uuid, 3 code text, 4 at bigint, 5 actor uuid, 6 failure bytea]
    "INSERT INTO refused_jobs (job_id, room_id, code, refused_at, user_id, failure)
     SELECT job, room, code, at, actor, failure FROM given
     WHERE NOT EXISTS (SELECT 1 FROM messages WHERE messages.message_id = given.job)
     ON CONFLICT DO NOTHING");
/// Stands for the code in the receipt of a job that changed nothing and was not refused.
pub(crate) const IDLE: &str = "";

impl Writes {
    pub(crate) async fn apply(self, tx: &mut Tx) -> Result<(), StoreError> {
        if matches!(tx.conn.engine, Engine::Postgres(_)) {
            self.write_together(tx).await?;
        } else {
            insert(tx, &MESSAGES, &self.message_rows(), "message").await?;
            insert(tx, &EVENTS, &self.event_rows(), "job").await?;
            tail::write_heads(tx, &self.heads).await?;
        }
        self.write_edits(tx).await?;
        self.write_reactions(tx).await?;
        self.write_deletes(tx).await?;
        self.write_members(tx).await?;
        self.write_titles(tx).await?;
        self.write_refused(tx).await?;
        // Last, so that people in many rooms are locked for a moment only.
        let moved = self.left.iter().map(|(_, user)| *user).chain(self.joined.iter().map(|it| it.1));
        change::grow(tx, moved).await
    }

    /// What nearly every batch writes, in one round trip.
    async fn write_together(&self, tx: &mut Tx) -> Result<(), StoreError> {
        if self.messages.is_empty() && self.events.is_empty() && self.heads.is_empty() {
            return Ok(());
        }
        let rows = self.message_rows().beside(self.event_rows()).beside(tail::head_rows(&self.heads));
        let written: Vec<(i64, i64)> = tx.conn.fetch(&TOGETHER, &rows).await?;
        match written.first() {
            Some((messages, _)) if *messages != self.messages.len() as i64 => Err(StoreError::Conflict("message")),
            Some((_, events)) if *events == self.events.len() as i64 => Ok(()),
            _ => Err(StoreError::Conflict("job")),
        }
    }

    fn message_rows(&self) -> Rows<'_> {
        let mut all: Vec<&MessageRow> = self.messages.iter().collect();
        all.sort_unstable_by_key(|row| row.id);
        Rows::new()
            .id(all.iter().map(|row| row.id.0))
            .id(all.iter().map(|row| row.room.0))
            .int(all.iter().map(|row| row.seq.0))
            .int(all.iter().map(|row| row.rev.0))
            .id(all.iter().map(|row| row.sender.0))
            .maybe_id(all.iter().map(|row| row.reply_to.map(|id| id.0)))
            .int(all.iter().map(|row| row.sent_at.0))
            .int(all.iter().map(|row| row.stored_at.0))
            .maybe_int(all.iter().map(|row| row.edited_at.map(|at| at.0)))
            .maybe_int(all.iter().map(|row| row.deleted_at.map(|at| at.0)))
            // The column `changed_at`: a new message changed when it was stored.
            .int(all.iter().map(|row| row.stored_at.0))
            .text(all.iter().map(|row| row.client_msg_id.as_str()))
            .text(all.iter().map(|row| row.kind.as_str()))
            .text(all.iter().map(|row| row.content.as_str()))
            .maybe_bytes(all.iter().map(|row| row.packed_mentions()))
            .maybe_bytes(all.iter().map(|row| row.packed_attachments()))
    }

    async fn write_edits(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let last = last_of_each(&self.edits, |edit| edit.message);
        let rows = Rows::new()
            .id(last.iter().map(|edit| edit.message.0))
            .text(last.iter().map(|edit| edit.content.as_str()))
            .int(last.iter().map(|edit| edit.at.0));
        change(tx, &EDITS, &rows).await
    }

    async fn write_reactions(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let last = last_of_each(&self.reactions, |it| (it.message, it.user, it.emoji.as_str()));
        let (removed, given): (Vec<&Reaction>, Vec<&Reaction>) = last.into_iter().partition(|it| it.removed);
        let rows = |all: &[&'_ Reaction]| Rows::new().id(ids(all, |it| it.message.0)).id(ids(all, |it| it.user.0));
        let removed_rows = rows(&removed).text(removed.iter().map(|it| it.emoji.as_str()));
        change(tx, &UNREACT, &removed_rows).await?;
        let given_rows =
            rows(&given).text(given.iter().map(|it| it.emoji.as_str())).int(given.iter().map(|it| it.at.0));
        change(tx, &REACT, &given_rows).await
    }

    async fn write_deletes(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let all = &self.deletes;
        let rows = Rows::new().id(ids(all, |it| it.message.0)).int(all.iter().map(|it| it.at.0));
        change(tx, &DELETES, &rows).await?;
        change(tx, &UNREACT_ALL, &Rows::new().id(ids(all, |it| it.message.0))).await
    }

    fn event_rows(&self) -> Rows<'_> {
        let all = &self.events;
        let (messages, payloads): (Vec<Option<Uuid>>, Vec<Vec<u8>>) = all.iter().map(stored_form).unzip();
        Rows::new()
            .id(ids(all, |it| it.room.0))
            .int(all.iter().map(|it| it.rev.0))
            .int(all.iter().map(|it| it.epoch.0))
            .int(all.iter().map(|it| it.at.0))
            .maybe_id(messages)
            .maybe_id(all.iter().map(|it| it.job.map(|job| job.0)))
            .bytes(payloads)
    }

    async fn write_members(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let left = &self.left;
        let rows = || Rows::new().id(ids(left, |(room, _)| room.0)).id(ids(left, |(_, user)| user.0));
        if !left.is_empty() {
            // From here on their read marks stand still.
            change(tx, &STAY, &rows()).await?;
            departure::record(tx, &self.events).await?;
            change(tx, &LEFT, &rows()).await?;
        }
        let joined = &self.joined;
        let rows = Rows::new()
            .id(ids(joined, |it| it.0.0))
            .id(ids(joined, |it| it.1.0))
            .text(joined.iter().map(|it| it.2.as_str()))
            .int(joined.iter().map(|it| it.3.0));
        change(tx, &JOINED, &rows).await
    }

    async fn write_titles(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let last = last_of_each(&self.titles, |(room, ..)| *room);
        let rows = Rows::new().id(ids(&last, |it| it.0.0)).text(last.iter().map(|(_, title, _)| title.as_str()));
        let rows = rows.int(last.iter().map(|(.., at)| at.0));
        change(tx, &TITLES, &rows).await
    }

    async fn write_refused(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let refused = self.refused.iter().map(|it| (it.job, it.room, it.code.as_str(), it.at, Some(it)));
        let idle = self.idle.iter().map(|(job, room, at)| (*job, *room, IDLE, *at, None));
        let mut all: Vec<_> = refused.chain(idle).collect();
        all.sort_unstable_by_key(|it| it.0);
        let rows = Rows::new()
            .id(ids(&all, |it| it.0.0))
            .id(ids(&all, |it| it.1.0))
            .text(all.iter().map(|it| it.2))
            .int(all.iter().map(|it| it.3.0))
            .maybe_id(all.iter().map(|it| it.4.map(|refused| refused.actor.0)))
            .maybe_bytes(all.iter().map(|it| it.4.map(|refused| refused.failure.encode_to_vec())));
        insert(tx, &REFUSED, &rows, "job").await
    }
}

/// Inserts all rows or says that one of them is there already.
async fn insert(tx: &mut Tx, sql: &RowsSql, rows: &Rows<'_>, what: &'static str) -> Result<(), StoreError> {
    if rows.is_empty() || tx.conn.run(sql, rows).await? == rows.len() as u64 {
        return Ok(());
    }
    Err(StoreError::Conflict(what))
}

async fn change(tx: &mut Tx, sql: &RowsSql, rows: &Rows<'_>) -> Result<(), StoreError> {
    if !rows.is_empty() {
        tx.conn.run(sql, rows).await?;
    }
    Ok(())
}

fn ids<T>(all: &[T], id: impl Fn(&T) -> Uuid) -> Vec<Uuid> {
    all.iter().map(id).collect()
}

/// The last item of each key, since one statement may touch a row only once.
fn last_of_each<'a, T, K: Eq + Hash>(items: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let mut last = HashMap::with_capacity(items.len());
    for item in items {
        last.insert(key(item), item);
    }
    last.into_values().collect()
}

/// An event as it is stored: what an edit said stands in the message alone, so that a delete
/// erases it everywhere.
fn stored_form(event: &NewRoomEvent) -> (Option<Uuid>, Vec<u8>) {
    let message = event.message.map(|id| id.0);
    if event.payload.is_empty() {
        return (message, Vec::new());
    }
    match ServerEvent::decode(event.payload.as_slice()).ok().and_then(|event| event.kind) {
        Some(EventData::MessageEdited(mut edited)) => {
            edited.content = String::new();
            let target = edited.message_id.parse().ok();
            (target, ServerEvent::from(EventData::MessageEdited(edited)).encode_to_vec())
        }
        _ => (message, event.payload.clone()),
    }
}
