//! The one task that publishes: its queue makes the order of calls the order at the broker, lane by lane.
//!
//! Knows nothing of consuming, which has a connection of its own (a blocked publisher would hold
//! back acks). The invariant: every submission is answered within `CONFIRM_LIMIT`, whatever the
//! broker does; while there is no connection, at once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::shard::shard_of;
use futures_util::stream::{BoxStream, StreamExt as _};
use lapin::Event;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use runtime::{Backoff, Shutdown};
use telemetry::{Counter, Gauge};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::flight::{Flight, Lost, Parcel};
use super::lanes::{Lane, Lanes};
use super::link::{Link, asked};
use super::properties;
use super::topology::{EXCHANGE, Topology};
use super::weights::Weights;
use crate::BrokerError;
use crate::publish::Submission;

/// Submissions taken up between two looks at the confirms.
const CHUNK: usize = 256;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MOST_DELAY: Duration = Duration::from_secs(2);

/// What others may know of the publisher.
#[derive(Debug, Default)]
pub(super) struct State {
    connected: AtomicBool,
    blocked: AtomicBool,
}

impl State {
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Said by whoever connected first, before the task runs.
    pub(super) fn set_connected(&self) {
        self.connected.store(true, Ordering::Release);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }
}

/// A connection that is ready to publish.
pub(super) struct Line {
    link: Link,
    channel: lapin::Channel,
    events: BoxStream<'static, Event>,
}

impl Line {
    /// Connects, declares everything and opens a channel with confirms.
    pub(super) async fn open(uri: &AMQPUri, topology: Topology, app_id: &str) -> Result<Self, BrokerError> {
        let link = Link::open(uri, &format!("{app_id} publishing")).await?;
        let events = link.connection().events_listener().boxed();
        topology.declare(&link).await?;
        let channel = link.channel().await?;
        asked(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { link, channel, events })
    }
}

/// The task's belongings.
pub(super) struct Publisher {
    pub(super) uri: AMQPUri,
    pub(super) topology: Topology,
    pub(super) app_id: Arc<str>,
    pub(super) submissions: mpsc::Receiver<Submission>,
    pub(super) state: Arc<State>,
    pub(super) weights: Arc<Weights>,
    /// Asks this task to end.
    pub(super) closing: Shutdown,
    /// The service's own stop; ending before it would count as a failure.
    pub(super) stop: Shutdown,
}

/// How serving a connection ended.
enum End {
    Closed,
    Lost(Lost),
}

impl Publisher {
    /// Publishes until the last handle is gone or it is asked to end.
    pub(super) async fn run(mut self, line: Line) {
        let mut line = Some(line);
        while let Some(mut current) = line.take() {
            self.state.connected.store(true, Ordering::Release);
            let end = self.serve(&mut current).await;
            self.state.connected.store(false, Ordering::Release);
            self.state.blocked.store(false, Ordering::Release);
            match end {
                End::Closed => current.link.close().await,
                End::Lost(Lost(why)) => {
                    Counter::ConnectionsLost.inc_with("broker");
                    tracing::warn!(why, "lost the connection that publishes");
                    drop(current);
                    line = self.reconnect().await;
                }
            }
        }
        self.submissions.close();
        while self.submissions.recv().await.is_some() {}
        self.stop.requested().await;
    }

    /// Serves one connection. The flight ends with it, which answers all that it held.
    async fn serve(&mut self, line: &mut Line) -> End {
        let (mut flight, mut lanes) = (Flight::new(line.channel.clone()), Lanes::default());
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut sweep = pin!(tokio::time::sleep(Duration::ZERO));
        let mut armed: Option<Instant> = None;
        loop {
            let step = tokio::select! {
                biased;
                event = line.events.next() => self.heard(event),
                landed = flight.land(), if !flight.is_idle() => landed,
                () = &mut sweep, if armed.is_some() => {
                    armed = None;
                    flight.sweep(line.link.is_blocked())
                }
                count = self.submissions.recv_many(&mut chunk, CHUNK) => {
                    if count == 0 {
                        return End::Closed;
                    }
                    self.line_up(&mut chunk, &mut lanes);
                    Ok(())
                }
                () = self.closing.requested(), if flight.is_empty() && lanes.waiting() == 0 => return End::Closed,
            };
            let step = match step {
                Ok(()) => self.launch(&mut lanes, &line.link, &mut flight).await,
                lost => lost,
            };
            Gauge::ConfirmsOutstanding.set((flight.len() + lanes.waiting()) as f64);
            if let Err(lost) = step {
                return End::Lost(lost);
            }
            let deadline = flight.deadline().into_iter().chain(lanes.deadline(Instant::now())).min();
            if let Some(deadline) = deadline.filter(|deadline| armed.is_none_or(|armed| *deadline < armed)) {
                sweep.as_mut().reset(deadline);
                armed = Some(deadline);
            }
        }
    }

    /// Puts what came into its lanes.
    fn line_up(&self, chunk: &mut Vec<Submission>, lanes: &mut Lanes) {
        let now = Instant::now();
        for submission in chunk.drain(..) {
            let envelope = &submission.envelope;
            let shard = shard_of(envelope.shard_key, self.topology.shards());
            let lane = Lane { class: envelope.class(), shard, priority: envelope.kind.priority() };
            lanes.push(lane, submission, now);
        }
    }

    /// Sends what is due.
    async fn launch(&self, lanes: &mut Lanes, link: &Link, flight: &mut Flight) -> Result<(), Lost> {
        flight.landed().into_iter().for_each(|lane| lanes.landed(lane));
        // A blocked connection takes nothing; what is not sent needs no memory.
        if link.is_blocked() {
            lanes.clear();
        }
        let now = Instant::now();
        while let Some((lane, submissions)) = lanes.next(now) {
            self.weights.note(lane.class, lane.shard, submissions.len());
            let (envelopes, tickets): (Vec<_>, Vec<_>) =
                submissions.into_iter().map(|Submission { envelope, ticket }| (envelope, ticket)).unzip();
            let (properties, body) = properties::of_message(envelopes, lane.priority, &self.app_id);
            let routing_key = self.topology.routing_key(lane.class, lane.shard);
            let parcel = Parcel { exchange: EXCHANGE.to_owned(), routing_key, properties, body };
            flight.launch(lane, parcel, tickets).await?;
        }
        Ok(())
    }

    fn heard(&self, event: Option<Event>) -> Result<(), Lost> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker blocks publishing");
                self.state.blocked.store(true, Ordering::Release);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker takes events again");
                self.state.blocked.store(false, Ordering::Release);
            }
            Some(Event::Error(error)) => return Err(Lost(error.to_string())),
            None => return Err(Lost("the connection ended".to_owned())),
            Some(_) => {}
        }
        Ok(())
    }

    /// Connects again, however long it takes; refuses what is submitted meanwhile. `None` when it is
    /// asked to end.
    async fn reconnect(&mut self) -> Option<Line> {
        let (uri, app_id, topology) = (self.uri.clone(), Arc::clone(&self.app_id), self.topology);
        let mut attempts = pin!(async move {
            let mut backoff = Backoff::new(FIRST_DELAY, MOST_DELAY);
            loop {
                backoff.wait().await;
                match Line::open(&uri, topology, &app_id).await {
                    Ok(line) => return line,
                    Err(error) => tracing::warn!(%error, "cannot reach the broker"),
                }
            }
        });
        loop {
            tokio::select! {
                line = &mut attempts => {
                    tracing::info!("connected to the broker again");
                    return Some(line);
                }
                submission = self.submissions.recv() => drop(submission?),
                () = self.closing.requested() => return None,
            }
        }
    }
}
