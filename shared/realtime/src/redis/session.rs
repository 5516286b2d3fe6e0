//! One subscription connection to one server, from its making to its loss.
//!
//! The connection's own task reads the socket; this reads what that task passes on, at once and
//! without ever waiting for the inbox. The invariants: one change of subscriptions is under way at a
//! time, and the server answers in order, so a confirmation belongs to the change that asked for it;
//! nothing comes out of a connection that took another one's place before the word that something may be missing;
//! and the server's mark is read before anything is confirmed, so that no wipe after that goes unnoticed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::Channel;
use redis::Msg;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::keys::Keys;
use super::line::{Heard, Line, Messages};
use super::subscription::Subscription;
use super::{RedisEngine, fanout};
use crate::LogNumber;
use crate::inbox::Arrival;

/// How often the connection is asked for a sign of life, and how long it may take to give one.
const PROBE_EVERY: Duration = Duration::from_millis(1500);

/// Channels to begin with and to end.
#[derive(Default)]
pub(super) struct Subscribing {
    pub(super) add: Vec<Channel>,
    pub(super) remove: Vec<Channel>,
}

/// A server's mark: its key, and the value if the server said it.
pub(super) type Mark = (String, String);

/// Ends with the reason why the connection is of no use any more.
type Step<T> = BoxFuture<'static, Result<T, String>>;

pub(super) struct Session {
    line: Line,
    messages: Messages,
    probe_due: Interval,
    subscribing: Option<Step<()>>,
    probing: Option<Step<Option<Mark>>>,
    /// Channels that are being left, by name.
    leaving: HashSet<String>,
    /// Nothing was confirmed on this connection so far.
    fresh: bool,
    /// The server's mark when it was last seen.
    mark: Option<Mark>,
}

impl Session {
    pub(super) async fn connect(subscription: &mut Subscription) -> Result<Self, String> {
        let (line, messages) = Line::open(&subscription.node, subscription.engine.keys).await?;
        let mark = subscription.engine.mark_of(&subscription.node).await?;
        let mut probe_due = interval(PROBE_EVERY);
        probe_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut session = Self {
            line,
            messages,
            probe_due,
            subscribing: None,
            probing: None,
            leaving: HashSet::new(),
            fresh: true,
            mark,
        };
        let everything = subscription.everything();
        session.begin(everything, &subscription.engine);
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
            heard = self.messages.next() => self.hear(&heard.ok_or("closed by the server")?, subscription)?,
            confirmed = outcome(&mut self.subscribing) => {
                confirmed?;
                subscription.confirmed(std::mem::replace(&mut self.fresh, false));
                self.begin_next(subscription);
            }
            () = wishes.changed() => self.begin_next(subscription),
            mark = outcome(&mut self.probing) => {
                self.compare(mark?, subscription);
            }
            _ = self.probe_due.tick() => self.probe(subscription),
        }
        Ok(())
    }

    /// Passes on what came.
    fn hear(&mut self, heard: &[Heard], subscription: &Subscription) -> Result<(), String> {
        // What comes before everything is subscribed again would hide that something is missing before it.
        if !(self.fresh && subscription.is_replaced()) {
            let keys = subscription.engine.keys;
            let arrivals = heard.iter().filter_map(|heard| match heard {
                Heard::Message(message) => arrival(message, keys),
                Heard::Left(_) => None,
            });
            subscription.mailbox.put(arrivals);
        }
        let left = |heard: &Heard| matches!(heard, Heard::Left(name) if !self.leaving.remove(name));
        if heard.iter().any(left) { Err("a slot has moved".into()) } else { Ok(()) }
    }

    /// Carries out what is wanted by now, unless a change is still under way.
    fn begin_next(&mut self, subscription: &mut Subscription) {
        if self.subscribing.is_some() {
            return;
        }
        if let Some(subscribing) = subscription.absorb() {
            self.begin(subscribing, &subscription.engine);
        }
    }

    fn begin(&mut self, change: Subscribing, engine: &RedisEngine) {
        let names = |channels: Vec<Channel>| -> Vec<String> {
            channels.into_iter().map(|channel| engine.keys.channel(channel)).collect()
        };
        let (add, remove) = (names(change.add), names(change.remove));
        if self.line.is_sharded() {
            self.leaving.extend(remove.iter().cloned());
        }
        self.subscribing = Some(self.line.clone().carry_out(add, remove).boxed());
    }

    fn probe(&mut self, subscription: &Subscription) {
        if self.probing.is_none() {
            let (line, engine) = (self.line.clone(), Arc::clone(&subscription.engine));
            let node = Arc::clone(&subscription.node);
            let probe = async move {
                line.ping().await?;
                engine.mark_of(&node).await
            };
            self.probing = Some(probe.boxed());
        }
    }

    /// Another mark than before means that the server's data were wiped meanwhile, and who could not read it
    /// before cannot tell.
    fn compare(&mut self, mark: Option<Mark>, subscription: &Subscription) {
        let Some(mark) = mark else { return };
        let is_like = |before: &Mark| before.0 != mark.0 || before.1 == mark.1;
        if !self.mark.as_ref().is_some_and(is_like) {
            tracing::warn!("the data in Redis were wiped, or may have been: resynchronising");
            subscription.mailbox.put([Arrival::Reconnected]);
        }
        self.mark = Some(mark);
    }
}

/// What the step under way ends with, which is then over; for ever if there is none.
async fn outcome<T>(step: &mut Option<Step<T>>) -> Result<T, String> {
    let Some(under_way) = step else { return std::future::pending().await };
    let outcome = under_way.await;
    *step = None;
    outcome
}

fn arrival(message: &Msg, keys: Keys) -> Option<Arrival> {
    let channel = keys.parse_channel(message.get_channel_name())?;
    let payload = message.get_payload_bytes();
    let (number, payload) = if keys == Keys::One { fanout::unwrap(payload) } else { (LogNumber::NONE, payload) };
    Some(Arrival::Delivery { channel, number, payload: Bytes::copy_from_slice(payload) })
}
