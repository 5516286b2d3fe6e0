//! Receives a shard's three queues and settles what it received.
//!
//! Knows nothing of publishing. The invariant: a delivery is acked once all its events are settled and every copy
//! made of them is confirmed, and no copy is made before all are settled; what is not acked when the channel closes
//! goes back to its place.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use domain::Class;
use futures_util::stream::Stream as _;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use runtime::Tasks;

use super::copies::{Copies, CopyLine};
use super::flight::Parcel;
use super::link::{Link, asked, close_channel, unavailable};
use super::topology::{DEAD_EXCHANGE, Topology, queue_name, retry_name};
use super::{Doubts, acks, properties};
use crate::consumer::{Place, UNSETTLED_LEAST};
use crate::share::shares;
use crate::turn::Turn;
use crate::{ASK_LIMIT, BrokerError, Failure, Incoming, Settlement, settle};

/// How many events each class may have unsettled on its channel. An urgent event waits behind
/// what was prefetched before it, so these bound that wait: at 0.1 ms per event in batches, 256 are
/// 25 ms. Two full batches of the urgent class keep the processor busy during a round trip; the
/// others need less, for their share of a batch is smaller.
const fn prefetched(class: Class) -> f32 {
    match class {
        Class::High => 256.0,
        Class::Medium => 128.0,
        Class::Low => 64.0,
    }
}

/// Messages that are prefetched, however many events they hold: fewer would not last for a round trip. So it begins,
/// for the first messages that come may be full.
const PREFETCH_LEAST: f32 = UNSETTLED_LEAST as f32;
/// So many settlements in a row that needed far less show that it is calm.
const CALM: u8 = 32;
/// Of the average of events per message, the part that one message makes.
const PART: f32 = 1.0 / 32.0;

/// Receives the events of one shard from RabbitMQ.
pub(crate) struct ShardConsumer {
    open: Option<Open>,
    doubts: Arc<Doubts>,
    tasks: Tasks,
}

struct Open {
    lines: [Line; 3],
    copies: CopyLine,
    stopping: bool,
    link: Arc<Link>,
    /// Given up last, when everything is back in its queue.
    _turn: Turn,
}

/// What is known of a message with several events.
struct Bundle {
    unsettled: usize,
    /// Of its events that failed. They wait for the others: were they published before, then what is received
    /// again because the others are not settled would be there twice.
    copies: Vec<Parcel>,
}

/// One queue on a channel of its own.
struct Line {
    class: Class,
    routing_key: String,
    channel: Channel,
    deliveries: lapin::Consumer,
    /// Receives when those have ended, with another prefetch.
    next: Option<lapin::Consumer>,
    /// Messages that may be unsettled.
    prefetch: u16,
    /// Messages that are unsettled.
    held: u16,
    /// The most there were since the last settlement.
    held_most: u16,
    /// Settlements in a row before which few were.
    calm: u8,
    /// Events of the messages that came lately, on average.
    weight: f32,
    waiting: VecDeque<Incoming>,
    /// Bundles that are not settled as a whole, by tag.
    bundles: HashMap<u64, Bundle>,
    acked: u64,
    ended: bool,
}

impl ShardConsumer {
    /// Subscribes to the shard's queues.
    pub(super) async fn open(
        link: Arc<Link>,
        (copies, doubts): (Arc<Copies>, Arc<Doubts>),
        (topology, shard): (Topology, u16),
        turn: Turn,
        tasks: &Tasks,
    ) -> Result<Self, BrokerError> {
        let subscribe = |class| Line::open(&link, class, topology.routing_key(class, shard));
        let [high, medium, low] = Class::ALL;
        let lines = [subscribe(high).await?, subscribe(medium).await?, subscribe(low).await?];
        let open = Open { lines, copies: CopyLine::new(copies), stopping: false, link: Arc::clone(&link), _turn: turn };
        Ok(Self { open: Some(open), doubts, tasks: tasks.clone() })
    }

    fn open_mut(&mut self) -> &mut Open {
        self.open.as_mut().expect("only close and drop take it, and both end this consumer")
    }

    pub(crate) async fn next_batch(&mut self, max_events: usize) -> Result<Vec<Incoming>, BrokerError> {
        let open = self.open_mut();
        match std::future::poll_fn(|context| open.poll_arrivals(context)).await {
            Ok(()) => Ok(open.take(max_events)),
            Err(error) => {
                self.doubts.heed(&error);
                Err(error)
            }
        }
    }

    pub(crate) async fn settle(&mut self, batch: Vec<(Incoming, Settlement)>) -> Result<(), BrokerError> {
        self.open_mut().settle(batch).await
    }

    pub(crate) fn holds(&self, place: Place) -> bool {
        let line = self.open.as_ref().map(|open| &open.lines[place.class.index()]);
        line.is_some_and(|line| line.bundles.contains_key(&place.number))
    }

    pub(crate) async fn begin_stop(&mut self) -> Result<(), BrokerError> {
        let open = self.open_mut();
        open.stopping = true;
        for line in &open.lines {
            line.unsubscribe().await?;
        }
        Ok(())
    }

    pub(crate) fn abandon(mut self) {
        if let Some(open) = self.open.take() {
            open.link.cut();
        }
    }

    pub(crate) async fn close(mut self) {
        if let Some(open) = self.open.take() {
            open.close().await;
        }
    }
}

impl Drop for ShardConsumer {
    fn drop(&mut self) {
        // Outside a runtime the process is ending, and the connection with it.
        if let Some(open) = self.open.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.tasks.detach("close a consumer", open.close());
        }
    }
}

impl Line {
    async fn open(link: &Link, class: Class, routing_key: String) -> Result<Self, BrokerError> {
        let channel = link.channel().await?;
        let prefetch = PREFETCH_LEAST as u16;
        let deliveries = subscribe(&channel, &routing_key, prefetch).await?;
        let (waiting, bundles) = (VecDeque::new(), HashMap::new());
        let (next, held, held_most, calm, weight, acked, ended) = (None, 0, 0, 0, 1.0, 0, false);
        let opened = Self {
            class,
            routing_key,
            channel,
            deliveries,
            next,
            prefetch,
            held,
            held_most,
            calm,
            weight,
            waiting,
            bundles,
            acked,
            ended,
        };
        Ok(opened)
    }

    async fn unsubscribe(&self) -> Result<(), BrokerError> {
        let last = self.next.as_ref().unwrap_or(&self.deliveries);
        asked(self.channel.basic_cancel(last.tag(), BasicCancelOptions::default())).await
    }

    /// How many messages are worth having here: as many as hold the events that are, once the broker would have sent
    /// more than it may. While few come, few: should they be full suddenly, and the processor hang, few events are here
    /// that do not count as waiting.
    fn wanted(&mut self) -> u16 {
        let held = std::mem::replace(&mut self.held_most, self.held);
        let most = (prefetched(self.class) / self.weight).max(PREFETCH_LEAST) as u16;
        self.calm = if held < self.prefetch / 8 { self.calm.saturating_add(1) } else { 0 };
        if self.calm >= CALM {
            PREFETCH_LEAST as u16
        } else if held >= self.prefetch {
            most
        } else {
            most.min(self.prefetch)
        }
    }

    /// The broker counts messages: when far more or far fewer are wanted than before, it is told another number, with
    /// another subscription. What came with the old one is received first. Not while somebody stands by, who would be
    /// next.
    async fn adapt(&mut self) -> Result<(), BrokerError> {
        let wanted = self.wanted();
        let is_other = wanted >= self.prefetch.saturating_mul(2) || wanted <= self.prefetch / 2;
        if !is_other || self.next.is_some() || self.ended {
            return Ok(());
        }
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = queue_name(&self.routing_key);
        let queue = asked(self.channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
        if queue.consumer_count() > 1 {
            return Ok(());
        }
        self.unsubscribe().await?;
        self.next = Some(subscribe(&self.channel, &self.routing_key, wanted).await?);
        self.prefetch = wanted;
        Ok(())
    }

    /// Takes up whatever has arrived.
    fn poll_arrivals(&mut self, context: &mut Context<'_>, stopping: bool) -> Result<(), BrokerError> {
        while !self.ended {
            match Pin::new(&mut self.deliveries).poll_next(context) {
                Poll::Ready(Some(Ok(delivery))) => self.take_up(delivery),
                Poll::Ready(Some(Err(error))) => return Err(unavailable(&error)),
                Poll::Ready(None) => match self.next.take() {
                    Some(next) => self.deliveries = next,
                    None if stopping => self.ended = true,
                    None => return Err(BrokerError::Unavailable("the broker ended the subscription".into())),
                },
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn take_up(&mut self, delivery: Delivery) {
        self.held = self.held.saturating_add(1);
        self.held_most = self.held_most.max(self.held);
        let tag = delivery.delivery_tag;
        let events = properties::all_incoming(self.class, delivery);
        self.weight += (events.len() as f32 - self.weight) * PART;
        if events.len() > 1 {
            self.bundles.insert(tag, Bundle { unsettled: events.len(), copies: Vec::new() });
        }
        self.waiting.extend(events);
    }

    /// Takes so many events, or a few less: a message is not cut in two, so that it can be acked with its batch.
    /// One that alone has more is taken whole.
    fn take(&mut self, count: usize) -> impl Iterator<Item = Incoming> {
        let place = |at: usize| self.waiting.get(at).map(Incoming::place);
        let is_cut = |at: usize| at > 0 && at < self.waiting.len() && place(at - 1) == place(at);
        let below = (1..=count).rev().find(|at| !is_cut(*at));
        let whole = below.or_else(|| (count..=self.waiting.len()).find(|at| !is_cut(*at))).unwrap_or(count);
        self.waiting.drain(..whole)
    }

    /// One event of a message is settled, with what is made of it. If that was the last one: all that is made of
    /// the message.
    fn settle(&mut self, tag: u64, copy: Option<Parcel>) -> Option<Vec<Parcel>> {
        let Some(bundle) = self.bundles.get_mut(&tag) else { return Some(copy.into_iter().collect()) };
        bundle.copies.extend(copy);
        bundle.unsettled -= 1;
        if bundle.unsettled > 0 {
            return None;
        }
        self.bundles.remove(&tag).map(|bundle| bundle.copies)
    }

    async fn ack(&mut self, tags: Vec<u64>) -> Result<(), BrokerError> {
        self.held = self.held.saturating_sub(tags.len() as u16);
        for (tag, multiple) in acks::acks(&mut self.acked, tags) {
            asked(self.channel.basic_ack(tag, BasicAckOptions { multiple })).await?;
        }
        Ok(())
    }
}

async fn subscribe(channel: &Channel, routing_key: &str, prefetch: u16) -> Result<lapin::Consumer, BrokerError> {
    // It holds for the subscriptions that follow.
    asked(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let (queue, options) = (queue_name(routing_key), BasicConsumeOptions::default());
    asked(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default())).await
}

impl Open {
    /// Ready when something waits or nothing will come any more.
    fn poll_arrivals(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BrokerError>> {
        for line in &mut self.lines {
            if let Err(error) = line.poll_arrivals(context, self.stopping) {
                return Poll::Ready(Err(error));
            }
        }
        let waits = self.lines.iter().any(|line| !line.waiting.is_empty());
        let over = self.lines.iter().all(|line| line.ended);
        if waits || over { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn take(&mut self, max_events: usize) -> Vec<Incoming> {
        let counts = shares(self.lines.each_ref().map(|line| line.waiting.len()), max_events);
        let mut batch = Vec::with_capacity(counts.iter().sum());
        for (line, count) in self.lines.iter_mut().zip(counts) {
            batch.extend(line.take(count));
        }
        batch
    }

    /// When the copies are not confirmed, what failed is received again, with all that came in the same message; the
    /// rest is acked all the same, so that it need not be applied twice.
    async fn settle(&mut self, batch: Vec<(Incoming, Settlement)>) -> Result<(), BrokerError> {
        let (mut done, mut failed): ([Vec<u64>; 3], [Vec<u64>; 3]) = Default::default();
        let mut copies = Vec::new();
        for (incoming, settlement) in batch {
            let Place { class, number: tag } = incoming.place();
            let copy = match settlement {
                Settlement::Done => None,
                Settlement::Failed(failure) => Some(self.copy(incoming, &failure)),
            };
            if let Some(made) = self.lines[class.index()].settle(tag, copy) {
                let tags = if made.is_empty() { &mut done } else { &mut failed };
                tags[class.index()].push(tag);
                copies.extend(made);
            }
        }
        let outcome = self.copies.publish(copies).await;
        for ((line, mut tags), failed) in self.lines.iter_mut().zip(done).zip(failed) {
            if outcome.is_ok() {
                tags.extend(failed);
            }
            line.ack(tags).await?;
            if !self.stopping {
                line.adapt().await?;
            }
        }
        outcome
    }

    /// What an event that failed becomes: its next attempt, or a dead letter.
    fn copy(&self, incoming: Incoming, failure: &Failure) -> Parcel {
        let routing_key = self.lines[incoming.class.index()].routing_key.clone();
        let (exchange, properties) = if let Some(step) = settle::next_step(&incoming, failure) {
            (retry_name(step), properties::of_retry(&incoming, failure))
        } else {
            let queue = queue_name(&routing_key);
            (DEAD_EXCHANGE.to_owned(), properties::of_dead_letter(&incoming, failure, &queue, &routing_key))
        };
        Parcel { exchange, routing_key, properties, body: incoming.envelope.body }
    }

    /// Gives back what is not acked, then the turn.
    async fn close(self) {
        let closing = async {
            for line in &self.lines {
                close_channel(&line.channel).await;
            }
        };
        if tokio::time::timeout(ASK_LIMIT, closing).await.is_err() {
            // Only the end of the connection makes sure that the broker takes everything back.
            self.link.cut();
        }
        self.copies.close().await;
    }
}
