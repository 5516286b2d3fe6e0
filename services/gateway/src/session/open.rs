//! The third phase: serving an open session.
//!
//! Commands are taken one after another in the order of their frames; what a message waits for (the
//! broker's confirm) is waited for beside that. The invariant: each command with an id gets exactly
//! one ack, and `QUEUED` only after the confirm.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use domain::limits::COMMANDS_IN_FLIGHT;
use domain::{RoomId, Timestamp};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use protocol::{Ack, ClientFrame, CloseCode, Code, Command, EventData, FrameId, Refusal, wire};
use telemetry::Counter;
use transport::socketio::{Assembler, BadPacket};
use transport::{Link, Received};

use crate::commands::{self, Caller, Outcome};
use crate::handle::outbox::Kind;
use crate::handle::{Handle, Identity, Signal};
use crate::session::connection::{Connection, End, Step};
use crate::shared::Shared;
use crate::socketio::{self, Said};
use crate::{presence, refusals};

/// By so many the commands refused for their rate may outnumber those that were taken, before the
/// client is shown the door.
const FLOOD: u32 = 2_000;

/// Nobody is told to wait for longer because of the rate.
const HINT_MOST_US: u64 = 10_000_000;

type Confirmed = (Option<FrameId>, Result<wire::Queued, Refusal>);
/// Waits for confirms; boxed and there only while something waits, because most sessions are idle.
type Confirms = Option<Box<FuturesUnordered<BoxFuture<'static, Confirmed>>>>;

/// Tells the others that a user is there.
pub(crate) type Arrival = BoxFuture<'static, ()>;

/// An open session.
pub(crate) struct Open {
    caller: Caller,
    expires_at: Timestamp,
    /// Done in the background.
    arrival: Option<Arrival>,
    /// The one command that looks something up.
    preparing: Option<(Option<FrameId>, BoxFuture<'static, Outcome>)>,
    confirms: Confirms,
    flood: u32,
    /// When the next command that is refused for its rate may come again, microseconds.
    hinted_us: u64,
    leaving: Option<CloseCode>,
    /// Binary attachments on their way.
    assembler: Assembler,
}

async fn arrive(shared: Arc<Shared>, handle: Arc<Handle>, identity: Identity, rooms: Vec<RoomId>) {
    let telling = async || {
        tokio::join!(refusals::tell(&shared, &handle), presence::arrive(&shared, &handle, &identity, &rooms));
    };
    shared.turns.wait_for(telling).await;
}

pub(crate) enum Next {
    Step(Step),
    Prepared(Option<FrameId>, Outcome),
    Confirmed(Confirmed),
}

impl Open {
    pub(crate) fn new(
        shared: Arc<Shared>,
        handle: Arc<Handle>,
        identity: Identity,
        expires_at: Timestamp,
        rooms: Vec<RoomId>,
    ) -> Self {
        let arrival = arrive(Arc::clone(&shared), Arc::clone(&handle), identity.clone(), rooms);
        let caller = Caller { shared, handle, user: identity.user, device: identity.device };
        Self {
            caller,
            expires_at,
            arrival: Some(Box::pin(arrival)),
            preparing: None,
            confirms: None,
            flood: 0,
            hinted_us: 0,
            leaving: None,
            assembler: Assembler::default(),
        }
    }

    /// A session whose user has arrived.
    pub(crate) fn arrived(self) -> Self {
        Self { arrival: None, ..self }
    }

    /// What an `auth` is answered with.
    pub(crate) fn refreshed(&self) -> wire::Refreshed {
        commands::auth::refreshed(self.expires_at)
    }

    /// Serves the client until one of the two sides ends it; what is left of the arrival goes along,
    /// because departing must not overtake it.
    pub(crate) async fn run<L: Link>(mut self, connection: &mut Connection<L>) -> (End, Option<Arrival>) {
        let end = loop {
            if let Some(code) = self.leaving
                && self.waits_for_nothing()
            {
                break End::Close(code);
            }
            let next = std::future::poll_fn(|cx| self.poll_next(connection, cx)).await;
            if let ControlFlow::Break(end) = self.see_to(next) {
                break end;
            }
        };
        (end, self.arrival)
    }

    pub(crate) fn poll_next<L: Link>(&mut self, connection: &mut Connection<L>, cx: &mut Context<'_>) -> Poll<Next> {
        connection.poll_send_first(cx);
        if let Poll::Ready(confirmed) = self.poll_confirms(cx) {
            return Poll::Ready(Next::Confirmed(confirmed));
        }
        if let Some((_, preparing)) = &mut self.preparing
            && let Poll::Ready(outcome) = preparing.as_mut().poll(cx)
        {
            let id = self.preparing.take().and_then(|(id, _)| id);
            return Poll::Ready(Next::Prepared(id, outcome));
        }
        let may_read = self.may_read(connection);
        let step = match connection.poll_step(cx, may_read) {
            // What was sent just now made room: what came meanwhile would wait for the next ping.
            Poll::Pending if !may_read && self.may_read(connection) => connection.poll_step(cx, true),
            step => step,
        };
        // Only after that: a client that has gone again meanwhile does not arrive.
        if step.is_pending()
            && let Some(arrival) = &mut self.arrival
            && arrival.as_mut().poll(cx).is_ready()
        {
            self.arrival = None;
        }
        step.map(Next::Step)
    }

    fn poll_confirms(&mut self, cx: &mut Context<'_>) -> Poll<Confirmed> {
        let Some(confirms) = &mut self.confirms else { return Poll::Pending };
        match Pin::new(&mut **confirms).poll_next_unpin(cx) {
            Poll::Ready(Some(confirmed)) => Poll::Ready(confirmed),
            Poll::Ready(None) => {
                self.confirms = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// A client is read on only while there is room for what it may ask.
    fn may_read<L: Link>(&self, connection: &Connection<L>) -> bool {
        let in_flight = self.confirms.as_ref().map_or(0, |confirms| confirms.len());
        self.preparing.is_none()
            && self.leaving.is_none()
            && in_flight < COMMANDS_IN_FLIGHT
            && !connection.is_congested()
    }

    fn waits_for_nothing(&self) -> bool {
        self.preparing.is_none() && self.confirms.as_ref().is_none_or(|confirms| confirms.is_empty())
    }

    pub(crate) fn see_to(&mut self, next: Next) -> ControlFlow<End> {
        match next {
            Next::Confirmed((id, Ok(queued))) => self.answer(id, &Ack::Queued(queued)),
            Next::Confirmed((id, Err(refusal))) => self.refuse(id, refusal),
            Next::Prepared(id, outcome) => self.settle(id, outcome),
            Next::Step(Step::Signal(Signal::Close(CloseCode::Draining))) => self.leaving = Some(CloseCode::Draining),
            Next::Step(Step::Signal(Signal::Close(code))) => return ControlFlow::Break(End::Close(code)),
            Next::Step(Step::Signal(Signal::Expiring)) => self.warn_of_expiry(),
            Next::Step(Step::Signal(Signal::Ping)) => {}
            Next::Step(Step::Received(received)) => return self.receive(received),
        }
        ControlFlow::Continue(())
    }

    fn warn_of_expiry(&self) {
        let warning = wire::AuthExpiring { expires_at: self.expires_at.to_rfc3339() };
        let handle = &self.caller.handle;
        handle.push(handle.dialect.event(&EventData::AuthExpiring(warning)), Kind::Answer);
    }

    fn receive(&mut self, received: Received) -> ControlFlow<End> {
        match received {
            Received::Alive => ControlFlow::Continue(()),
            Received::Broken(code) => ControlFlow::Break(End::Close(code)),
            Received::Gone => ControlFlow::Break(End::Gone),
            Received::Text(_) | Received::Binary(_) if self.caller.handle.dialect.is_native() => {
                match self.caller.handle.dialect.decode(&received) {
                    Ok(frame) => self.take(frame),
                    Err(code) => ControlFlow::Break(End::Close(code)),
                }
            }
            Received::Text(text) => {
                let said = socketio::read(&text, &mut self.assembler);
                self.hear(said)
            }
            Received::Binary(data) => {
                let said = socketio::attach(data, &mut self.assembler);
                self.hear(said)
            }
        }
    }

    /// Sees to what a Socket.IO client said.
    fn hear(&mut self, said: Result<Said, BadPacket>) -> ControlFlow<End> {
        match said {
            Ok(Said::Frame(frame)) => self.take(frame),
            // Coming in again costs more than any command.
            Ok(Said::Leave) => match self.caller.shared.intake.allow(self.caller.user) {
                Ok(()) => ControlFlow::Break(End::Left),
                Err(_) => ControlFlow::Break(End::Close(CloseCode::Flooding)),
            },
            Ok(Said::Close) => ControlFlow::Break(End::Gone),
            Ok(Said::Connect(connect)) if connect.namespace != socketio::NAMESPACE => {
                let refusal = socketio::refuse_namespace(&connect.namespace);
                self.caller.handle.push(refusal, Kind::Answer);
                self.flooded()
            }
            Ok(Said::Connect(_) | Said::Nothing) => ControlFlow::Continue(()),
            Err(BadPacket) => ControlFlow::Break(End::Close(CloseCode::BadFrame)),
        }
    }

    /// Takes one command: counts it against the rate, then starts it.
    fn take(&mut self, frame: ClientFrame) -> ControlFlow<End> {
        let ClientFrame { id, command } = frame;
        if let Err(refusal) = self.caller.shared.intake.allow(self.caller.user) {
            self.flooded()?;
            let refusal = self.spread(refusal);
            let refusal = match &command {
                Ok(Command::MessageSend(send)) => refusal.of(&send.client_msg_id),
                _ => refusal,
            };
            self.refuse(id, refusal);
            return ControlFlow::Continue(());
        }
        self.flood = self.flood.saturating_sub(1);
        match command {
            Ok(command) => {
                let shared = &self.caller.shared;
                shared.idle.used(&self.caller.handle, &command, shared.wheel.now_ms());
                let outcome = commands::start(&self.caller, command);
                self.settle(id, outcome);
            }
            Err(refusal) => self.refuse(id, refusal),
        }
        ControlFlow::Continue(())
    }

    /// Gives each of many refused commands a time of its own to come again: who keeps to the hints finds
    /// that they hold.
    fn spread(&mut self, refusal: Refusal) -> Refusal {
        let shared = &self.caller.shared;
        let now_us = shared.clock.monotonic_us();
        let wait_us = refusal.retry_after_ms.unwrap_or_default() * 1000;
        let at_us = self.hinted_us.max(now_us + wait_us).min(now_us + HINT_MOST_US);
        let per_second = u64::try_from(shared.limits.events_per_sec).unwrap_or_default().max(1);
        self.hinted_us = at_us + 1_000_000 / per_second;
        refusal.after((at_us - now_us).div_ceil(1000).max(1))
    }

    /// Counts something that was answered with a refusal only.
    fn flooded(&mut self) -> ControlFlow<End> {
        self.flood += 1;
        if self.flood < FLOOD { ControlFlow::Continue(()) } else { ControlFlow::Break(End::Close(CloseCode::Flooding)) }
    }

    fn settle(&mut self, id: Option<FrameId>, outcome: Outcome) {
        match outcome {
            Outcome::Answer(ack) => self.answer(id, &ack),
            Outcome::Refused(refusal) => self.refuse(id, refusal),
            Outcome::Later(look_up) => self.preparing = Some((id, look_up)),
            Outcome::Accepted(accepted) => {
                let confirm = Box::pin(async move { (id, accepted.confirmed().await) });
                self.confirms.get_or_insert_default().push(confirm);
            }
            Outcome::Joined { ack, entering } => {
                self.answer(id, &Ack::RoomState(ack));
                entering.open();
            }
            Outcome::Refreshed(claims) => {
                // What ended the tokens meanwhile may have spared the old one and not this one.
                if !self.caller.handle.rights.live_by(claims.issued_at) {
                    self.caller.handle.close(CloseCode::Forbidden);
                }
                self.expires_at = claims.expires_at;
                self.caller.handle.authenticated(self.caller.shared.monotonic_ms(claims.expires_at));
                self.caller.shared.wheel.watch(&self.caller.handle);
                self.answer(id, &Ack::Refreshed(self.refreshed()));
            }
        }
    }

    fn answer(&self, id: Option<FrameId>, ack: &Ack) {
        if let Some(id) = id {
            self.caller.handle.answer(&id, ack);
        }
    }

    /// A refusal reaches the client as its ack, or as an event when it asked for none.
    fn refuse(&self, id: Option<FrameId>, refusal: Refusal) {
        Counter::RequestsRefused.inc_with(refusal.code.as_str());
        if refusal.code == Code::Internal {
            tracing::error!(user = %self.caller.user, "a command failed inside");
        }
        let handle = &self.caller.handle;
        match id {
            Some(id) => handle.answer(&id, &Ack::Refusal(refusal.into())),
            None => handle.push(handle.dialect.error(refusal), Kind::Answer),
        }
    }
}
