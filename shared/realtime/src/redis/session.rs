//! One subscription connection, from its making to its loss.
//!
//! The connection's own task reads the socket; this reads what that task passes on, at once and
//! without ever waiting for the inbox. The invariant: one change of subscriptions is under way at a
//! time, and the server answers in order, so a confirmation belongs to the change that asked for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::ReadyChunks;
use futures_util::{FutureExt as _, StreamExt as _};
use protocol::Channel;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, Value};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::subscription::Subscription;
use super::{CONNECT_LIMIT, RedisEngine, fanout, keys};
use crate::COMMAND_LIMIT;
use crate::inbox::Arrival;

/// Channels in one SUBSCRIBE.
const SLICE: usize = 1024;
/// Messages taken over in one go.
const READ_AHEAD: usize = 256;
/// How often the connection is asked for a sign of life, and how long it may take to give one.
const PROBE_EVERY: Duration = Duration::from_millis(1500);

/// Channels to begin with and to end.
#[derive(Default)]
pub(super) struct Subscribing {
    pub(super) add: Vec<Channel>,
    pub(super) remove: Vec<Channel>,
}

/// Ends with the reason why the connection is of no use any more.
type Step<T> = BoxFuture<'static, Result<T, String>>;

pub(super) struct Session {
    sink: PubSubSink,
    messages: ReadyChunks<PubSubStream>,
    probe_due: Interval,
    subscribing: Option<Step<()>>,
    probing: Option<Step<Option<String>>>,
    /// Nothing was confirmed on this connection so far.
    fresh: bool,
    /// The server's mark when it was last seen.
    mark: Option<String>,
}

impl Session {
    pub(super) async fn connect(subscription: &mut Subscription) -> Result<Self, String> {
        let connecting = subscription.engine.client.get_async_pubsub();
        let (sink, stream) = match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => connection.split(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".into()),
        };
        let mut probe_due = interval(PROBE_EVERY);
        probe_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut session = Self {
            sink,
            messages: stream.ready_chunks(READ_AHEAD),
            probe_due,
            subscribing: None,
            probing: None,
            fresh: true,
            mark: None,
        };
        session.begin(subscription.everything());
        Ok(session)
    }

    /// Serves until the connection is lost; answers why it was.
    pub(super) async fn live(&mut self, subscription: &mut Subscription) -> String {
        loop {
            if let Err(reason) = self.step(subscription).await {
                return reason;
            }
        }
    }

    async fn step(&mut self, subscription: &mut Subscription) -> Result<(), String> {
        let wishes = Arc::clone(&subscription.wishes);
        tokio::select! {
            messages = self.messages.next() => {
                let messages = messages.ok_or("closed by the server")?;
                subscription.mailbox.put(messages.iter().filter_map(arrival));
            }
            confirmed = outcome(&mut self.subscribing) => {
                confirmed?;
                subscription.confirmed(std::mem::replace(&mut self.fresh, false));
                self.begin_next(subscription);
            }
            () = wishes.changed() => self.begin_next(subscription),
            mark = outcome(&mut self.probing) => {
                self.compare(mark?, subscription);
            }
            _ = self.probe_due.tick() => self.probe(&subscription.engine),
        }
        Ok(())
    }

    /// Carries out what is wanted by now, unless a change is still under way.
    fn begin_next(&mut self, subscription: &mut Subscription) {
        if self.subscribing.is_some() {
            return;
        }
        if let Some(subscribing) = subscription.absorb() {
            self.begin(subscribing);
        }
    }

    fn begin(&mut self, change: Subscribing) {
        self.subscribing = Some(carry_out(self.sink.clone(), change).boxed());
    }

    fn probe(&mut self, engine: &Arc<RedisEngine>) {
        if self.probing.is_none() {
            self.probing = Some(probe(self.sink.clone(), Arc::clone(engine)).boxed());
        }
    }

    /// Another mark than before means that the server's data were wiped meanwhile.
    fn compare(&mut self, mark: Option<String>, subscription: &Subscription) {
        if mark.is_none() {
            return;
        }
        if self.mark.is_some() && self.mark != mark {
            tracing::warn!("the data in Redis were wiped: resynchronising");
            subscription.mailbox.put([Arrival::Reconnected]);
        }
        self.mark = mark;
    }
}

/// What the step under way ends with, which is then over; for ever if there is none.
async fn outcome<T>(step: &mut Option<Step<T>>) -> Result<T, String> {
    let Some(under_way) = step else { return std::future::pending().await };
    let outcome = under_way.await;
    *step = None;
    outcome
}

async fn carry_out(mut sink: PubSubSink, change: Subscribing) -> Result<(), String> {
    for slice in change.remove.chunks(SLICE) {
        let names: Vec<String> = slice.iter().map(|channel| keys::channel(*channel)).collect();
        in_time(sink.unsubscribe(names)).await?;
    }
    for slice in change.add.chunks(SLICE) {
        let names: Vec<String> = slice.iter().map(|channel| keys::channel(*channel)).collect();
        in_time(sink.subscribe(names)).await?;
    }
    Ok(())
}

async fn probe(mut sink: PubSubSink, engine: Arc<RedisEngine>) -> Result<Option<String>, String> {
    in_time(sink.ping::<Value>()).await?;
    Ok(engine.mark().await)
}

async fn in_time<T>(answer: impl Future<Output = redis::RedisResult<T>>) -> Result<T, String> {
    match timeout(COMMAND_LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

fn arrival(message: &Msg) -> Option<Arrival> {
    let channel = keys::parse_channel(message.get_channel_name())?;
    let (number, payload) = fanout::unwrap(message.get_payload_bytes());
    Some(Arrival::Delivery { channel, number, payload: Bytes::copy_from_slice(payload) })
}

impl RedisEngine {
    /// The random value that whoever came first left on the server; `None` when it does not answer.
    async fn mark(&self) -> Option<String> {
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(keys::MARK).arg(uuid::Uuid::now_v7().to_string()).arg("NX").ignore();
        pipe.get(keys::MARK);
        self.pipeline::<(String,)>(&pipe).await.ok().map(|(mark,)| mark)
    }
}
