//! The distributed engine: RabbitMQ.
//!
//! Knows AMQP, not what events mean. The invariant: publishing and consuming never share a
//! connection, copies of failed events included, and everything that is routed somewhere is declared
//! on every connection first.

mod acks;
mod consumer;
mod copies;
mod flight;
mod inspect;
mod lanes;
mod letters;
mod link;
pub mod properties;
mod publisher;
mod rescue;
mod topology;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::Class;
use lapin::uri::AMQPUri;
use protocol::SignedEnvelope;
use runtime::{Clock, Shutdown, Tasks};
use telemetry::Counter;
use tokio::sync::Mutex;

use self::copies::{Copies, CopyLine};
use self::letters::{Look, Road};
use self::link::Link;
use self::publisher::{Line, Publisher, State};
use self::topology::Topology;
use self::weights::Weights;
use crate::letters::{DeadLetter, Fate, LetterPage, LetterQuery, Reach, Selection, Swept};
use crate::publish::Gate;
use crate::turn::Turns;
use crate::{ASK_LIMIT, BrokerError, CONFIRM_LIMIT, Confirm, Depths, LOOK_LIMIT, PublishError, within};

pub(crate) use self::consumer::ShardConsumer;

/// RabbitMQ, by up to three connections: one publishes new events, one consumes and asks, and one,
/// made when the first event fails, publishes retries and dead letters.
pub(crate) struct RabbitMq {
    gate: Gate,
    state: Arc<State>,
    closing: Shutdown,
    uri: AMQPUri,
    topology: Topology,
    app_id: Arc<str>,
    consuming: Mutex<Option<Arc<Link>>>,
    copies: Arc<Copies>,
    doubts: Arc<Doubts>,
    weights: Arc<Weights>,
    turns: Turns,
    tasks: Tasks,
}

impl RabbitMq {
    pub(crate) async fn open(url: &str, shards: u16, app_id: String, tasks: &Tasks) -> Result<Self, BrokerError> {
        Self::begin(url, Topology::new(shards), app_id, tasks).await
    }

    /// Opens it without making anything that is not there.
    pub(crate) async fn visit(url: &str, shards: u16, app_id: String, tasks: &Tasks) -> Result<Self, BrokerError> {
        Self::begin(url, Topology::of_others(shards), app_id, tasks).await
    }

    async fn begin(url: &str, topology: Topology, app_id: String, tasks: &Tasks) -> Result<Self, BrokerError> {
        let uri = link::parse_url(url)?;
        let (app_id, state) = (Arc::<str>::from(app_id), Arc::<State>::default());
        let line = Line::open(&uri, topology, &app_id).await?;
        let (gate, submissions) = Gate::new();
        let (closing, weights) = (Shutdown::new(), Arc::new(Weights::new(topology.shards())));
        state.set_connected();
        let publisher = Publisher {
            uri: uri.clone(),
            topology,
            app_id: Arc::clone(&app_id),
            submissions,
            state: Arc::clone(&state),
            weights: Arc::clone(&weights),
            closing: closing.clone(),
            stop: tasks.shutdown().clone(),
        };
        tasks.own("broker publisher", publisher.run(line));
        let (consuming, turns) = (Mutex::default(), Turns::new(topology.shards()));
        let copies = Arc::new(Copies::new(uri.clone(), topology, &app_id));
        let (doubts, tasks) = (Arc::new(Doubts::new(topology.shards())), tasks.clone());
        Ok(Self { gate, state, closing, uri, topology, app_id, consuming, copies, doubts, weights, turns, tasks })
    }

    pub(crate) fn shards(&self) -> u16 {
        self.topology.shards()
    }

    pub(crate) fn publish(&self, envelope: SignedEnvelope) -> Confirm {
        if self.is_connected() { self.gate.submit(envelope) } else { Confirm::refused(PublishError::Unavailable) }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state.is_connected() && !self.closing.is_requested()
    }

    pub(crate) fn can_settle(&self) -> bool {
        self.is_connected()
    }

    pub(crate) async fn consume(&self, shard: u16) -> Result<ShardConsumer, BrokerError> {
        let turn = self.turns.take(shard, ASK_LIMIT).await?;
        if self.doubts.take(shard) {
            Box::pin(self.rescue(shard)).await.inspect_err(|_| self.doubts.raise())?;
        }
        let link = self.consuming().await?;
        let (copies, queues) = (Arc::clone(&self.copies), (self.topology, shard));
        let doubts = Arc::clone(&self.doubts);
        let opened = ShardConsumer::open(Arc::clone(&link), (copies, doubts), queues, turn, &self.tasks).await;
        if let Err(error) = &opened {
            self.doubts.heed(error);
            // A queue may be gone, which a new connection declares again; and whatever was
            // subscribed already must not stand by when the next attempt comes.
            link.cut();
        }
        opened
    }

    /// Takes out of a shard's queues what cannot be read.
    async fn rescue(&self, shard: u16) -> Result<(), BrokerError> {
        let queues = Class::ALL.into_iter().map(|class| (class, self.topology.routing_key(class, shard)));
        let mut copies = CopyLine::new(Arc::clone(&self.copies));
        let now = Clock::system().now();
        let rescuing = Box::pin(rescue::rescue(&self.uri, queues, &mut copies, now));
        let rescued = within(LOOK_LIMIT, rescuing).await;
        copies.close().await;
        rescued.map(drop)
    }

    pub(crate) async fn depths(&self) -> Result<Depths, BrokerError> {
        inspect::depths(&*self.consuming().await?, self.topology, &self.weights).await
    }

    pub(crate) async fn dead_letters(&self, query: &LetterQuery) -> Result<LetterPage, BrokerError> {
        self.look(query.within).await?.page(query).await
    }

    pub(crate) async fn dead_letter(&self, job_id: &str, time: Duration) -> Result<Option<DeadLetter>, BrokerError> {
        self.look(time).await?.find(job_id).await
    }

    pub(crate) async fn sweep(&self, selection: &Selection, fate: Fate, reach: Reach) -> Result<Swept, BrokerError> {
        let road = Road { copies: Arc::clone(&self.copies), topology: self.topology };
        self.look(reach.within).await?.sweep(selection, fate, reach.letters, road).await
    }

    async fn look(&self, within: Duration) -> Result<Look, BrokerError> {
        Look::open(&self.uri, &self.app_id, within).await
    }

    pub(crate) async fn ping(&self) -> Result<(), BrokerError> {
        if !self.is_connected() {
            return Err(BrokerError::Unavailable("not connected".to_owned()));
        }
        if self.state.is_blocked() {
            return Err(BrokerError::Unavailable("it blocks publishing (a resource alarm)".to_owned()));
        }
        inspect::ping(&*self.consuming().await?).await
    }

    pub(crate) async fn flush(&self, limit: Duration) {
        self.gate.flush(limit).await;
    }

    pub(crate) async fn close(&self) {
        self.flush(CONFIRM_LIMIT).await;
        self.closing.request();
        if let Some(link) = self.consuming.lock().await.take() {
            link.close().await;
        }
        self.copies.close().await;
    }

    /// The consuming connection; made anew when it was lost.
    async fn consuming(&self) -> Result<Arc<Link>, BrokerError> {
        let mut consuming = self.consuming.lock().await;
        if let Some(link) = consuming.as_ref().filter(|link| link.is_alive()) {
            return Ok(Arc::clone(link));
        }
        if consuming.take().is_some() {
            Counter::ConnectionsLost.inc_with("broker");
        }
        let link = Link::open(&self.uri, &format!("{} consuming", self.app_id)).await?;
        self.topology.declare(&link).await?;
        Ok(Arc::clone(consuming.insert(Arc::new(link))))
    }
}

/// In which shards' queues something may lie that cannot be read. Their consumers share a connection: what
/// one of them cannot read ends all of them.
pub(crate) struct Doubts(Vec<AtomicBool>);

impl Doubts {
    fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| AtomicBool::new(false)).collect())
    }

    /// Any shard of this process may be the one, if it is that.
    fn heed(&self, error: &BrokerError) {
        if matches!(error, BrokerError::Unreadable(_)) {
            self.raise();
        }
    }

    fn raise(&self) {
        self.0.iter().for_each(|doubt| doubt.store(true, Ordering::Release));
    }

    /// Whether there is a doubt, which is gone then.
    fn take(&self, shard: u16) -> bool {
        self.0.get(usize::from(shard)).is_some_and(|doubt| doubt.swap(false, Ordering::AcqRel))
    }
}
