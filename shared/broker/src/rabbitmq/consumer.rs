//! Receives a shard's three queues and settles what it received.
//!
//! Knows nothing of publishing. The invariant: a delivery is acked once it is settled and every copy
//! made of it is confirmed; what is not acked when the channel closes goes back to its place.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use domain::Class;
use futures_util::stream::Stream as _;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use runtime::Tasks;

use super::copies::{Copies, CopyLine};
use super::flight::Parcel;
use super::link::{Link, asked, close_channel, unavailable};
use super::topology::{DEAD_EXCHANGE, Topology, queue_name, retry_name};
use super::{Doubts, acks, properties};
use crate::consumer::Origin;
use crate::share::shares;
use crate::turn::Turn;
use crate::{ASK_LIMIT, BrokerError, Failure, Incoming, Settlement, settle};

/// How many unsettled deliveries each class may have on its channel. An urgent event waits behind
/// what was prefetched before it, so these bound that wait: at 0.1 ms per event in batches, 256 are
/// 25 ms. Two full batches of the urgent class keep the processor busy during a round trip; the
/// others need less, for their share of a batch is smaller.
const fn prefetch(class: Class) -> u16 {
    match class {
        Class::High => 256,
        Class::Medium => 128,
        Class::Low => 64,
    }
}

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

/// One queue on a channel of its own.
struct Line {
    class: Class,
    routing_key: String,
    channel: Channel,
    deliveries: lapin::Consumer,
    waiting: VecDeque<Delivery>,
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

    pub(crate) async fn begin_stop(&mut self) -> Result<(), BrokerError> {
        let open = self.open_mut();
        open.stopping = true;
        for line in &open.lines {
            asked(line.channel.basic_cancel(line.deliveries.tag(), BasicCancelOptions::default())).await?;
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
        asked(channel.basic_qos(prefetch(class), BasicQosOptions::default())).await?;
        let queue = queue_name(&routing_key);
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let deliveries = asked(consume).await?;
        Ok(Self { class, routing_key, channel, deliveries, waiting: VecDeque::new(), acked: 0, ended: false })
    }

    /// Takes up whatever has arrived.
    fn poll_arrivals(&mut self, context: &mut Context<'_>, stopping: bool) -> Result<(), BrokerError> {
        while !self.ended {
            match Pin::new(&mut self.deliveries).poll_next(context) {
                Poll::Ready(Some(Ok(delivery))) => self.waiting.push_back(delivery),
                Poll::Ready(Some(Err(error))) => return Err(unavailable(&error)),
                Poll::Ready(None) if stopping => self.ended = true,
                Poll::Ready(None) => return Err(BrokerError::Unavailable("the broker ended the subscription".into())),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    async fn ack(&mut self, tags: Vec<u64>) -> Result<(), BrokerError> {
        for (tag, multiple) in acks::acks(&mut self.acked, tags) {
            asked(self.channel.basic_ack(tag, BasicAckOptions { multiple })).await?;
        }
        Ok(())
    }
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
            let class = line.class;
            batch.extend(line.waiting.drain(..count).map(|delivery| properties::incoming(class, delivery)));
        }
        batch
    }

    /// When the copies are not confirmed, what failed is received again; the rest is acked all the
    /// same, so that it need not be applied twice.
    async fn settle(&mut self, batch: Vec<(Incoming, Settlement)>) -> Result<(), BrokerError> {
        let (mut done, mut failed): ([Vec<u64>; 3], [Vec<u64>; 3]) = Default::default();
        let mut copies = Vec::new();
        for (incoming, settlement) in batch {
            let tags = if matches!(settlement, Settlement::Done) { &mut done } else { &mut failed };
            if let Origin::RabbitMq { tag, .. } = incoming.origin {
                tags[incoming.class.index()].push(tag);
            }
            if let Settlement::Failed(failure) = settlement {
                copies.push(self.copy(incoming, &failure));
            }
        }
        let outcome = self.copies.publish(copies).await;
        for ((line, mut tags), failed) in self.lines.iter_mut().zip(done).zip(failed) {
            if outcome.is_ok() {
                tags.extend(failed);
            }
            line.ack(tags).await?;
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
