//! Dead letters on RabbitMQ, looked at one after another without taking them out.
//!
//! Each call has a connection of its own: however it ends, the broker puts back what was not acked,
//! in its place. The invariant: a letter is acked only after the event made of it is confirmed; and
//! one operator at a time works on the letters, for those that somebody holds are hidden from others.

use std::sync::Arc;
use std::time::Duration;

use domain::shard::shard_of;
use lapin::Channel;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use tokio::time::Instant;

use super::copies::{Copies, CopyLine};
use super::flight::Parcel;
use super::link::{Link, asked, close_channel};
use super::properties;
use super::topology::{DEAD_QUEUE, EXCHANGE, Topology};
use crate::letters::{
    DeadLetter, Fate, LetterCursor, LetterPage, LetterQuery, PAGE_BYTES, PAGE_LETTERS, SLICE_BYTES, SLICE_LETTERS,
    Selection, Swept, cause_of, destination,
};
use crate::{BrokerError, letter};

/// Who has declared this queue, which nobody else can while they do, operates.
const TURN_QUEUE: &str = "chat.events.dlq.operator";
/// How long another operator is waited for.
const TURN_LIMIT: Duration = Duration::from_secs(5);
const TURN_EVERY: Duration = Duration::from_millis(200);

/// A look through the dead letters, from the oldest on.
pub(super) struct Look {
    link: Link,
    channel: Channel,
    /// How many there were when it began: what comes behind them is not looked at.
    total: u64,
    looked: u64,
    /// The id of the last one looked at.
    last: String,
    deadline: Instant,
}

impl Look {
    /// Waits for its turn, at most 5 s; looks at nothing more `within` so long from then.
    pub(super) async fn open(uri: &AMQPUri, app_id: &str, within: Duration) -> Result<Self, BrokerError> {
        let link = Link::open(uri, &format!("{app_id} operating")).await?;
        take_turn(&link).await?;
        let channel = link.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = asked(channel.queue_declare(DEAD_QUEUE.into(), options, FieldTable::default())).await?;
        let total = queue.message_count().into();
        let deadline = Instant::now() + within;
        Ok(Self { link, channel, total, looked: 0, last: String::new(), deadline })
    }

    /// The next letter; `None` when there are no more, or no time.
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        if self.looked >= self.total || self.is_late() {
            return Ok(None);
        }
        let got = asked(self.channel.basic_get(DEAD_QUEUE.into(), BasicGetOptions::default())).await?;
        let Some(BasicGetMessage { delivery, .. }) = got else {
            // Somebody took some meanwhile, by other means.
            self.looked = self.total;
            return Ok(None);
        };
        self.looked += 1;
        self.last = own(delivery.properties.message_id().as_ref());
        Ok(Some(delivery))
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Puts everything back that was not acked. What was acked is gone for good afterwards.
    async fn close(self) {
        close_channel(&self.channel).await;
        self.link.close().await;
    }

    /// Where it has come to.
    fn here(&self) -> LetterCursor {
        LetterCursor { position: self.looked, job_id: self.last.clone() }
    }

    /// A page.
    pub(super) async fn page(mut self, query: &LetterQuery) -> Result<LetterPage, BrokerError> {
        if let Some(after) = &query.after {
            self.behind(after).await?;
        }
        let began = self.looked;
        let limit = query.limit.clamp(1, PAGE_LETTERS);
        let mut page = LetterPage { letters: Vec::new(), next: None };
        let (mut bytes, mut last) = (0, None);
        while let Some(delivery) = self.next().await? {
            let letter = read(delivery);
            if query.cause.is_some_and(|cause| cause_of(&letter.headers) != Some(cause.as_str())) {
                continue;
            }
            if page.letters.len() == limit || bytes > PAGE_BYTES {
                page.next = last;
                break;
            }
            bytes += letter.bytes();
            last = Some(self.here());
            page.letters.push(letter);
        }
        if page.next.is_none() && self.looked < self.total {
            // No time for more of it: it goes on behind what was looked at, were it none of those wanted.
            if self.looked == began {
                return Err(BrokerError::TooMany);
            }
            page.next = Some(self.here());
        }
        self.close().await;
        Ok(page)
    }

    /// Goes behind the letter at which a page ended: to its place, if a letter of its id is there; else
    /// some before it were taken out, and it is the last one of that id before. If it is gone, too, nobody
    /// knows how many before it are: the look begins anew.
    async fn behind(&mut self, after: &LetterCursor) -> Result<(), BrokerError> {
        let mut found = 0;
        while self.looked < after.position && self.next().await?.is_some() {
            if self.last == after.job_id {
                found = self.looked;
            }
        }
        if found == after.position {
            return Ok(());
        }
        close_channel(&self.channel).await;
        self.channel = self.link.channel().await?;
        self.looked = 0;
        while self.looked < found && self.next().await?.is_some() {}
        if self.looked < found { Err(BrokerError::TooMany) } else { Ok(()) }
    }

    /// The oldest letter with that id.
    pub(super) async fn find(mut self, job_id: &str) -> Result<Option<DeadLetter>, BrokerError> {
        let mut found = None;
        while let Some(delivery) = self.next().await? {
            if own(delivery.properties.message_id().as_ref()) == job_id {
                found = Some(read(delivery));
                break;
            }
        }
        let unfinished = found.is_none() && self.looked < self.total;
        self.close().await;
        if unfinished { Err(BrokerError::TooMany) } else { Ok(found) }
    }

    /// Replays or drops.
    pub(super) async fn sweep(
        mut self,
        selection: &Selection,
        fate: Fate,
        most: usize,
        road: Road,
    ) -> Result<Swept, BrokerError> {
        let mut slice = Slice::default();
        let mut copies = CopyLine::new(road.copies);
        let mut count = 0;
        while count + slice.tags.len() < most
            && let Some(delivery) = self.next().await?
        {
            if !is_meant(selection, &delivery) {
                continue;
            }
            slice.add(delivery, fate, road.topology);
            if slice.is_full() {
                count += slice.settle(&self.channel, &mut copies).await?;
            }
        }
        count += slice.settle(&self.channel, &mut copies).await?;
        let more = self.looked < self.total;
        self.close().await;
        copies.close().await;
        Ok(Swept { count: count as u64, more })
    }
}

/// The way back for replayed events.
pub(super) struct Road {
    pub(super) copies: Arc<Copies>,
    pub(super) topology: Topology,
}

/// Letters that are settled at once.
#[derive(Default)]
struct Slice {
    tags: Vec<u64>,
    parcels: Vec<Parcel>,
    bytes: usize,
}

impl Slice {
    fn add(&mut self, delivery: Delivery, fate: Fate, topology: Topology) {
        self.tags.push(delivery.delivery_tag);
        if fate == Fate::Replay {
            self.bytes += delivery.data.len();
            self.parcels.push(again(delivery, topology));
        }
    }

    fn is_full(&self) -> bool {
        self.tags.len() >= SLICE_LETTERS || self.bytes >= SLICE_BYTES
    }

    /// First the confirms, then the acks; how many letters that were.
    async fn settle(&mut self, channel: &Channel, copies: &mut CopyLine) -> Result<usize, BrokerError> {
        let Self { tags, parcels, .. } = std::mem::take(self);
        copies.publish(parcels).await?;
        for tag in &tags {
            asked(channel.basic_ack(*tag, BasicAckOptions { multiple: false })).await?;
        }
        Ok(tags.len())
    }
}

/// One operator at a time: the queue is exclusive to a connection and goes with it.
async fn take_turn(link: &Link) -> Result<(), BrokerError> {
    let end = Instant::now() + TURN_LIMIT;
    loop {
        let channel = link.channel().await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        match asked(channel.queue_declare(TURN_QUEUE.into(), options, FieldTable::default())).await {
            Ok(_) => return Ok(()),
            // A refusal has closed the channel; a lost connection will say so with the next one.
            Err(_) if Instant::now() < end => tokio::time::sleep(TURN_EVERY).await,
            Err(_) => {
                return Err(BrokerError::Unavailable("another operator is at work on the dead letters".to_owned()));
            }
        }
    }
}

fn own(value: Option<&ShortString>) -> String {
    value.map(|text| text.as_str().to_owned()).unwrap_or_default()
}

fn read(delivery: Delivery) -> DeadLetter {
    let properties = delivery.properties;
    DeadLetter {
        job_id: own(properties.message_id().as_ref()),
        kind: own(properties.kind().as_ref()),
        headers: properties::readable(&properties),
        body: delivery.data.into(),
    }
}

fn is_meant(selection: &Selection, delivery: &Delivery) -> bool {
    let cause = properties::text(&delivery.properties, letter::CAUSE);
    selection.includes(&own(delivery.properties.message_id().as_ref()), cause.as_deref())
}

/// The event of a letter, on its way into the queue of its room.
fn again(delivery: Delivery, topology: Topology) -> Parcel {
    let original = properties::text(&delivery.properties, letter::ORIGINAL_ROUTING_KEY);
    let incoming = properties::incoming(domain::Class::Low, delivery);
    let (class, key) = destination(&incoming.envelope, original.as_deref());
    let routing_key = topology.routing_key(class, shard_of(key, topology.shards()));
    let properties = properties::of_replay(&incoming);
    Parcel { exchange: EXCHANGE.to_owned(), routing_key, properties, body: incoming.envelope.body }
}
