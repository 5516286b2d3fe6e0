//! What the system holds at the end: the store's rows, the dead letters, the rooms as their owner is
//! told of them.
//!
//! Knows no judgement. The invariant: it is read when nothing moves any more, and as it is: rows by
//! SQL, because what would repair them on the way out must not hide what is wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use testkit::client::Socket;
use testkit::cluster::System;
use testkit::management::Management;
use uuid::Uuid;

use crate::view::Reaction;
use crate::world::World;

/// A message's row.
#[derive(Debug, Clone)]
pub struct MessageRow {
    /// The room's number.
    pub room: usize,
    /// Its place.
    pub seq: i64,
    /// Its id.
    pub id: Uuid,
    /// Who sent it.
    pub sender: Uuid,
    /// What its sender calls it.
    pub name: String,
    /// What it says.
    pub content: String,
    /// It was taken back.
    pub deleted: bool,
}

/// A durable change's row.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// The room's number.
    pub room: usize,
    /// Its number.
    pub rev: i64,
    /// When, milliseconds since 1970.
    pub wall_ms: i64,
    /// The message it is about.
    pub message: Option<Uuid>,
    /// Its receipt.
    pub job: Option<Uuid>,
}

/// An event that was given up.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DeadLetter {
    /// The event's id, as it was published.
    pub job: String,
    /// Why.
    pub cause: String,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Truth {
    /// By room and `seq`.
    pub messages: Vec<MessageRow>,
    /// By room and `rev`.
    pub events: Vec<EventRow>,
    /// Jobs that were refused, with the code; empty for what had nothing to change.
    pub refused: HashMap<Uuid, String>,
    /// By room: `last_seq` and `rev`.
    pub heads: BTreeMap<usize, (i64, i64)>,
    /// By room: its title, if it has one.
    pub titles: BTreeMap<usize, String>,
    /// Reactions that stand.
    pub reactions: BTreeSet<Reaction>,
    /// By room and member: how far they have read.
    pub members: BTreeMap<(usize, String), i64>,
    /// By room: the changes as its owner is told of them, from `rev` 2 on.
    pub timeline: BTreeMap<usize, Vec<(i64, String, Value)>>,
    /// By gateway and room: the messages as they now stand, as `sync` by `seq` tells them.
    pub listed: BTreeMap<(usize, usize), Vec<Value>>,
    /// What was given up.
    pub dead: Vec<DeadLetter>,
}

type Raw = (
    Vec<(Uuid, i64, Uuid, Uuid, String, String, Option<i64>)>,
    Vec<(Uuid, i64, i64, Option<Uuid>, Option<Uuid>)>,
    Vec<(Uuid, String)>,
    Vec<(Uuid, i64, i64)>,
    Vec<(Uuid, Uuid, String)>,
    Vec<(Uuid, Uuid, i64)>,
    Vec<(Uuid, Option<String>)>,
);

const MESSAGES: &str = "SELECT room_id, seq, message_id, sender_id, client_msg_id, content, deleted_at FROM messages
    ORDER BY room_id, seq";
const EVENTS: &str = "SELECT room_id, rev, happened_at, message_id, job_id FROM room_events
    ORDER BY room_id, rev";
const REFUSED: &str = "SELECT job_id, code FROM refused_jobs";
const HEADS: &str = "SELECT room_id, last_seq, rev FROM room_counters";
const REACTIONS: &str = "SELECT message_id, user_id, emoji FROM reactions";
const MEMBERS: &str = "SELECT room_id, user_id, read_seq FROM room_members";
const TITLES: &str = "SELECT room_id, title FROM rooms";

macro_rules! read_all {
    ($connection:expr) => {{
        let connection = $connection;
        (
            sqlx::query_as(MESSAGES).fetch_all(&mut *connection).await?,
            sqlx::query_as(EVENTS).fetch_all(&mut *connection).await?,
            sqlx::query_as(REFUSED).fetch_all(&mut *connection).await?,
            sqlx::query_as(HEADS).fetch_all(&mut *connection).await?,
            sqlx::query_as(REACTIONS).fetch_all(&mut *connection).await?,
            sqlx::query_as(MEMBERS).fetch_all(&mut *connection).await?,
            sqlx::query_as(TITLES).fetch_all(&mut *connection).await?,
        )
    }};
}

/// All of one moment.
async fn read_rows(system: &System) -> anyhow::Result<Raw> {
    if system.is_distributed() {
        let mut connection = PgConnection::connect(system.env("DATABASE_URL")).await?;
        sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut connection).await?;
        return Ok(read_all!(&mut connection));
    }
    let mut connection = SqliteConnection::connect(&file(system, "chat.db")).await?;
    sqlx::query("BEGIN").execute(&mut connection).await?;
    Ok(read_all!(&mut connection))
}

/// The URL of a file of the all-in-one, to be read only.
pub(crate) fn file(system: &System, name: &str) -> String {
    format!("sqlite://{}/{name}?mode=ro", system.env("DATA_DIR"))
}

impl Truth {
    /// Reads the store's rows alone.
    pub async fn rows(system: &System, world: &World) -> anyhow::Result<Self> {
        let mut truth = Self::default();
        truth.take(world, read_rows(system).await.context("the store's rows")?);
        Ok(truth)
    }

    /// Reads everything, and what the system did not answer when it was asked for its rooms.
    pub async fn read(
        system: &System,
        world: &World,
        management: Option<&Management>,
    ) -> anyhow::Result<(Self, Option<String>)> {
        let mut truth = Self::rows(system, world).await?;
        truth.dead = dead_letters(system, management).await.context("the dead letters")?;
        let silence = truth.ask(system, world).await.err().map(|error| format!("{error:#}"));
        Ok((truth, silence))
    }

    fn take(&mut self, world: &World, (messages, events, refused, heads, reactions, members, titles): Raw) {
        let numbers: HashMap<String, usize> =
            world.rooms.iter().enumerate().map(|(number, room)| (room.id.clone(), number)).collect();
        let number = |room: Uuid| numbers.get(&room.to_string()).copied();
        self.messages = messages
            .into_iter()
            .filter_map(|(room, seq, id, sender, name, content, deleted)| {
                Some(MessageRow { room: number(room)?, seq, id, sender, name, content, deleted: deleted.is_some() })
            })
            .collect();
        self.events = events
            .into_iter()
            .filter_map(|(room, rev, wall_ms, message, job)| {
                Some(EventRow { room: number(room)?, rev, wall_ms, message, job })
            })
            .collect();
        self.refused = refused.into_iter().collect();
        self.heads = heads.into_iter().filter_map(|(room, seq, rev)| Some((number(room)?, (seq, rev)))).collect();
        self.reactions = reactions
            .into_iter()
            .map(|(message, user, emoji)| (message.to_string(), user.to_string(), emoji))
            .collect();
        self.members = members
            .into_iter()
            .filter_map(|(room, user, seq)| Some(((number(room)?, user.to_string()), seq)))
            .collect();
        self.titles = titles.into_iter().filter_map(|(room, title)| Some((number(room)?, title?))).collect();
    }

    /// Asks as the owner, who was a member all the time.
    async fn ask(&mut self, system: &System, world: &World) -> anyhow::Result<()> {
        for (gateway, node) in system.gateways().iter().enumerate() {
            let socket = Socket::try_open(&node.url(), &format!("/ws?token={}", world.owner.token), &[]).await?;
            for (number, room) in world.rooms.iter().enumerate() {
                self.listed.insert((gateway, number), pages(&socket, &room.id, "afterSeq", "seq").await?);
                if gateway == 0 {
                    let pages = pages(&socket, &room.id, "afterRev", "rev").await?;
                    let event =
                        |it: &Value| Some((it["rev"].as_i64()?, it["event"].as_str()?.to_owned(), it["data"].clone()));
                    let events = pages.iter().map(event).collect::<Option<Vec<_>>>();
                    self.timeline.insert(number, events.context("an item without rev or event")?);
                }
            }
        }
        Ok(())
    }

    /// Everything that has a receipt among the changes.
    pub fn jobs(&self) -> HashSet<Uuid> {
        self.events.iter().filter_map(|event| event.job).collect()
    }
}

async fn pages(socket: &Socket, room: &str, after: &str, key: &str) -> anyhow::Result<Vec<Value>> {
    let mut items: Vec<Value> = Vec::new();
    loop {
        // The creation of a room is rev 1.
        let first = i64::from(after == "afterRev");
        let last = items.last().map_or(first, |item| item[key].as_i64().unwrap_or(first));
        let answer = socket.request("sync", json!({"rooms": [{"roomId": room, after: last}]})).await;
        let page = &answer["rooms"][0];
        let more = page["items"].as_array().with_context(|| format!("no items in {answer}"))?;
        items.extend(more.iter().cloned());
        if page["complete"] == true {
            return Ok(items);
        }
        ensure!(!more.is_empty(), "an incomplete answer without items: {page}");
    }
}

async fn dead_letters(system: &System, management: Option<&Management>) -> anyhow::Result<Vec<DeadLetter>> {
    let Some(management) = management else {
        let mut connection = SqliteConnection::connect(&file(system, "queue.db")).await?;
        let sql = "SELECT job_id, headers ->> 'x-cause' FROM dead";
        let rows: Vec<(String, Option<String>)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        let letter = |(job, cause): (String, Option<String>)| DeadLetter { job, cause: cause.unwrap_or_default() };
        return Ok(rows.into_iter().map(letter).collect());
    };
    let letters = management.try_look("chat.events.dlq", 10_000).await?;
    let letter = |letter: &Value| DeadLetter {
        job: letter["properties"]["message_id"].as_str().unwrap_or_default().to_owned(),
        cause: letter["properties"]["headers"]["x-cause"].as_str().unwrap_or_default().to_owned(),
    };
    Ok(letters.iter().map(letter).collect())
}
