//! Messages as they now stand: history by pages, single ones, their form on the wire.
//!
//! It knows no rights and no order but `seq`. The invariant: of a message that was taken back
//! nothing is given out but its tombstone.

use std::collections::HashMap;

use domain::{MessageId, Rev, RoomId, Seq, Timestamp, UserId, limits};
use prost::Message as _;
use protocol::wire;
use uuid::Uuid;

use crate::db::Conn;
use crate::error::damaged;
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError};

/// A message as it now stands.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageRow {
    /// Which.
    pub id: MessageId,
    /// Where.
    pub room: RoomId,
    /// Its number among the room's messages.
    pub seq: Seq,
    /// The number of the change that stored it.
    pub rev: Rev,
    /// Who wrote it.
    pub sender: UserId,
    /// The sender's own name for it.
    pub client_msg_id: String,
    /// TEXT, IMAGE, FILE, VIDEO, AUDIO.
    pub kind: String,
    /// What it says; empty once taken back.
    pub content: String,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// Who is mentioned.
    pub mentions: Vec<UserId>,
    /// What is attached.
    pub attachments: Vec<wire::Attachment>,
    /// When the edge accepted it, by its clock.
    pub sent_at: Timestamp,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it was last edited.
    pub edited_at: Option<Timestamp>,
    /// When it was taken back.
    pub deleted_at: Option<Timestamp>,
    /// How often each emoji was given, most frequent first; filled in history and timeline only.
    pub reactions: Vec<wire::ReactionCount>,
}

/// Which messages of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest.
    Newest,
    /// The newest of those below this number.
    Before(Seq),
    /// The oldest of those above this number.
    After(Seq),
}

macro_rules! message_columns {
    () => {
        "message_id, room_id, seq, rev, sender_id, reply_to, sent_at, stored_at, edited_at, deleted_at, client_msg_id, kind, content, mentions, attachments"
    };
}

/// What a message weighs in an answer, about: what it holds, and the names and ids around it.
macro_rules! message_weight {
    () => {
        "512 + OCTET_LENGTH(content) + COALESCE(OCTET_LENGTH(attachments), 0) + COALESCE(OCTET_LENGTH(mentions), 0)"
    };
}
/// A page bounded by number ($3) and by weight ($4). The weights are read first, without the contents;
/// the first message is on the page whatever it weighs.
macro_rules! page {
    ($side:literal, $order:literal) => {
        concat!(
            "WITH page AS (SELECT seq AS place, ",
            message_weight!(),
            " AS weight FROM messages WHERE room_id = $1 AND seq ",
            $side,
            " $2 ORDER BY seq ",
            $order,
            " LIMIT $3), sums AS (SELECT place, SUM(weight) OVER (ORDER BY place ",
            $order,
            ") - weight AS before FROM page) SELECT ",
            message_columns!(),
            " FROM sums JOIN messages ON room_id = $1 AND seq = place WHERE before < $4 ORDER BY seq ",
            $order
        )
    };
}
pub(crate) const BEFORE: &str = page!("<", "DESC");
pub(crate) const AFTER: &str = page!(">", "ASC");
const ONE: &str = concat!("SELECT ", message_columns!(), " FROM messages WHERE message_id = $1");
pub(crate) const MANY: RowsSql = rows_sql!([1 id uuid]
    concat!("SELECT ", message_columns!(), " FROM given JOIN messages ON messages.message_id = given.id"));
const REACTIONS: RowsSql = rows_sql!([1 id uuid]
    "SELECT message_id, emoji, COUNT(*) AS times FROM given JOIN reactions ON reactions.message_id = given.id
     GROUP BY message_id, emoji");

impl MessageRow {
    /// The message as clients see it; if it was taken back, its tombstone.
    pub fn to_wire(&self) -> wire::MessageDelivered {
        let tombstone = wire::MessageDelivered {
            room_id: self.room.to_string(),
            message_id: self.id.to_string(),
            seq: self.seq.0,
            sender_id: self.sender.to_string(),
            sent_at: self.sent_at.to_rfc3339(),
            deleted_at: self.deleted_at.map(Timestamp::to_rfc3339),
            ..wire::MessageDelivered::default()
        };
        if self.deleted_at.is_some() {
            return tombstone;
        }
        wire::MessageDelivered {
            rev: Some(self.rev.0),
            client_msg_id: Some(self.client_msg_id.clone()),
            r#type: Some(self.kind.clone()),
            content: Some(self.content.clone()),
            reply_to: self.reply_to.map(|id| id.to_string()),
            mentions: self.mentions.iter().map(UserId::to_string).collect(),
            attachments: self.attachments.clone(),
            stored_at: Some(self.stored_at.to_rfc3339()),
            edited_at: self.edited_at.map(Timestamp::to_rfc3339),
            reactions: self.reactions.clone(),
            ..tombstone
        }
    }

    /// The message as a change of its room; unlike in a list, a tombstone has its number there, too.
    pub fn to_event(&self) -> wire::MessageDelivered {
        wire::MessageDelivered { rev: Some(self.rev.0), ..self.to_wire() }
    }

    /// The mentions as they are stored: sixteen bytes each; `None` for none.
    pub(crate) fn packed_mentions(&self) -> Option<Vec<u8>> {
        let packed = self.mentions.iter().flat_map(|user| *user.as_bytes()).collect();
        (!self.mentions.is_empty()).then_some(packed)
    }

    /// The attachments as they are stored: protobuf, each after its length; `None` for none.
    pub(crate) fn packed_attachments(&self) -> Option<Vec<u8>> {
        let packed = self.attachments.iter().flat_map(wire::Attachment::encode_length_delimited_to_vec).collect();
        (!self.attachments.is_empty()).then_some(packed)
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct MessageRecord {
    message_id: Uuid,
    room_id: Uuid,
    seq: i64,
    rev: i64,
    sender_id: Uuid,
    reply_to: Option<Uuid>,
    sent_at: i64,
    stored_at: i64,
    edited_at: Option<i64>,
    deleted_at: Option<i64>,
    client_msg_id: String,
    kind: String,
    content: String,
    mentions: Option<Vec<u8>>,
    attachments: Option<Vec<u8>>,
}

impl MessageRecord {
    fn read(self) -> Result<MessageRow, StoreError> {
        Ok(MessageRow {
            id: MessageId(self.message_id),
            room: RoomId(self.room_id),
            seq: Seq(self.seq),
            rev: Rev(self.rev),
            sender: UserId(self.sender_id),
            client_msg_id: self.client_msg_id,
            kind: self.kind,
            content: self.content,
            reply_to: self.reply_to.map(MessageId),
            mentions: self.mentions.unwrap_or_default().chunks_exact(16).filter_map(UserId::from_slice).collect(),
            attachments: unpack_attachments(&self.attachments.unwrap_or_default())?,
            sent_at: Timestamp(self.sent_at),
            stored_at: Timestamp(self.stored_at),
            edited_at: self.edited_at.map(Timestamp),
            deleted_at: self.deleted_at.map(Timestamp),
            reactions: Vec::new(),
        })
    }
}

fn unpack_attachments(mut packed: &[u8]) -> Result<Vec<wire::Attachment>, StoreError> {
    let mut attachments = Vec::new();
    while !packed.is_empty() {
        let attachment = wire::Attachment::decode_length_delimited(&mut packed);
        attachments.push(attachment.map_err(|_| damaged("an attachment"))?);
    }
    Ok(attachments)
}

impl Store {
    /// A page of a room's messages, ascending by `seq`, at most `limit`; fewer when they are heavy,
    /// but not none while there are any.
    pub async fn history(&self, room: RoomId, page: Page, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
        self.history_within(room, page, limit, limits::PAGE_BYTES).await
    }

    /// The same, within about so many bytes.
    pub async fn history_within(
        &self,
        room: RoomId,
        page: Page,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let (sql, position) = match page {
            Page::Newest => (BEFORE, i64::MAX),
            Page::Before(seq) => (BEFORE, seq.0),
            Page::After(seq) => (AFTER, seq.0),
        };
        let mut conn = self.db.read().await?;
        let found: Vec<MessageRecord> = on!(conn, c => sqlx::query_as(sql).bind(room.0).bind(position).bind(limit as i64).bind(bytes as i64).fetch_all(c))?;
        let mut rows = found.into_iter().map(MessageRecord::read).collect::<Result<Vec<_>, _>>()?;
        if !matches!(page, Page::After(_)) {
            rows.reverse();
        }
        add_reactions(&mut conn, rows.iter_mut()).await?;
        Ok(rows)
    }

    /// One message.
    pub async fn message(&self, id: MessageId) -> Result<Option<MessageRow>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<MessageRecord> = on!(conn, c => sqlx::query_as(ONE).bind(id.0).fetch_optional(c))?;
        found.map(MessageRecord::read).transpose()
    }

    /// The oldest messages of a room above `seq`, ascending, at most `limit`; fewer when they are heavy.
    pub async fn after_seq(&self, room: RoomId, seq: Seq, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
        self.history(room, Page::After(seq), limit).await
    }
}

/// The messages with those ids that exist, without their reactions.
pub(crate) async fn load(
    conn: &mut Conn,
    ids: impl Iterator<Item = MessageId>,
) -> Result<HashMap<MessageId, MessageRow>, StoreError> {
    let rows = Rows::new().id(ids.map(|id| id.0));
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<MessageRecord> = conn.fetch(&MANY, &rows).await?;
    found.into_iter().map(|record| record.read().map(|row| (row.id, row))).collect()
}

/// Counts the reactions to those messages.
pub(crate) async fn add_reactions(
    conn: &mut Conn,
    messages: impl Iterator<Item = &mut MessageRow>,
) -> Result<(), StoreError> {
    let mut by_id: HashMap<Uuid, &mut MessageRow> = messages.map(|row| (row.id.0, row)).collect();
    if by_id.is_empty() {
        return Ok(());
    }
    let rows = Rows::new().id(by_id.keys().copied());
    let counts: Vec<(Uuid, String, i64)> = conn.fetch(&REACTIONS, &rows).await?;
    for (id, emoji, count) in counts {
        if let Some(row) = by_id.get_mut(&id) {
            row.reactions.push(wire::ReactionCount { emoji, count });
        }
    }
    // Not left to the database, each of which would sort texts in a way of its own.
    for row in by_id.into_values() {
        row.reactions.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.emoji.cmp(&b.emoji)));
    }
    Ok(())
}
