//! The one way in, for sockets and REST alike: validate, authorise, limit, sign, publish.
//!
//! Knows no transport and applies nothing. The invariant: what leaves here as `Accepted` was judged
//! against the caller's standing, is signed, and was handed to the broker in the order of the calls.

mod accepted;
mod drain;
mod limiter;
mod line;
mod load;
pub mod message;
mod presence;
mod queues;
mod room;
mod shedding;

use std::sync::Arc;

use broker::{Broker, Confirm};
use domain::permission::{Action, Verdict, judge};
use domain::rate::Rate;
use domain::room::{Role, RoomKind};
use domain::{EventKind, JobId, MessageId, RoomId, UserId};
use protocol::envelope::{NewEvent, kind_of, shard_key};
use protocol::{Change, Keyring, Refusal, SignedEnvelope, wire};
use realtime::Realtime;
use runtime::{Clock, Tasks};
use store::Store;
use telemetry::Counter;

pub use accepted::Accepted;

/// What the intake works with.
pub struct IntakeParts {
    /// Where accepted events go.
    pub broker: Broker,
    /// Asked for targets and, by REST, for standings.
    pub store: Store,
    /// Asked for how much is drained.
    pub realtime: Realtime,
    /// Signs events.
    pub keys: Keyring,
    /// The edge's clock.
    pub clock: Clock,
    /// Events per second of one user.
    pub rate: Rate,
    /// Ready events of a class over which new ones are refused; zero: never.
    pub queued_events: u32,
}

/// The intake. Clones share it.
#[derive(Clone)]
pub struct Intake {
    inner: Arc<Inner>,
}

struct Inner {
    parts: IntakeParts,
    limiter: limiter::Limiter,
    load: Arc<load::Load>,
}

/// Who asks, from where.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The account.
    pub user: UserId,
    /// The device; empty by REST.
    pub device: String,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// A member's place in a room: its kind and the member's role. `None`: no member.
pub type Standing = Option<(RoomKind, Role)>;

impl Intake {
    /// An intake whose depth watch runs under `tasks`.
    pub fn new(parts: IntakeParts, tasks: &Tasks) -> Self {
        let (broker, realtime, clock) = (parts.broker.clone(), parts.realtime.clone(), parts.clock.clone());
        let load = load::Load::watch(broker, realtime, parts.queued_events, clock, tasks);
        let limiter = limiter::Limiter::new(parts.rate);
        Self { inner: Arc::new(Inner { parts, limiter, load }) }
    }

    /// Counts one event of `user` against the rate; over it: `RATE_LIMITED` with a time to wait.
    pub fn allow(&self, user: UserId) -> Result<(), Refusal> {
        self.inner.limiter.take(user, self.inner.parts.clock.monotonic_us()).map_err(|wait_ms| {
            Counter::Limited.inc_with("user_events");
            Refusal::rate_limited(wait_ms)
        })
    }

    fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// Hands a change to the broker, unless too much waits there already: `OVERLOADED`.
    fn submit(
        &self,
        actor: &Actor,
        job_id: JobId,
        room_id: RoomId,
        change: Change,
        ack: wire::Queued,
    ) -> Result<Accepted, Refusal> {
        let name = ack.client_msg_id.clone();
        let refused = |refusal: Refusal| refusal.of(name.as_deref().unwrap_or_default());
        let key = shard_key(room_id, actor.user);
        let entered = self.inner.load.enter(kind_of(&change), key).map_err(refused)?;
        let (kind, confirm) = self.publish(actor, job_id, room_id, change, name);
        Ok(Accepted::new(ack, kind, confirm, entered))
    }

    /// Signs a change and hands it to the broker.
    fn publish(
        &self,
        actor: &Actor,
        job_id: JobId,
        room_id: RoomId,
        change: Change,
        correlation_id: Option<String>,
    ) -> (EventKind, Confirm) {
        let parts = &self.inner.parts;
        let event = NewEvent {
            job_id,
            room_id,
            actor: actor.user,
            device_id: actor.device.clone(),
            accepted_at: parts.clock.now(),
            correlation_id,
            traceparent: actor.traceparent.clone(),
            change,
        };
        let envelope = SignedEnvelope::seal(event, &parts.keys);
        (envelope.kind, parts.broker.publish(envelope))
    }
}

/// Turns the domain's verdict into a refusal; a stranger does not learn that the room exists.
fn permit(standing: Standing, action: Action) -> Result<(), Refusal> {
    let verdict = match standing {
        Some((kind, role)) => judge(kind, Some(role), action),
        None => Verdict::Unknown,
    };
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::Forbidden => Err(Refusal::forbidden()),
        Verdict::Unknown => Err(Refusal::not_found("room")),
    }
}

fn done() -> wire::Done {
    wire::Done { status: "OK".to_owned() }
}

fn queued(client_msg_id: Option<String>, id: impl std::fmt::Display) -> wire::Queued {
    wire::Queued { status: "QUEUED".to_owned(), client_msg_id, message_id: id.to_string(), job_id: None }
}

/// The ack of an event about a message that has an id of its own.
fn queued_about(message: MessageId, job: JobId) -> wire::Queued {
    wire::Queued { job_id: Some(job.to_string()), ..queued(None, message) }
}
