//! A session over long-polling, where the requests that carry it meet the task that serves it.
//!
//! Knows no packet's meaning. The invariant: at most one poll and one body at a time; a second one, or
//! one that is broken off, ends the session, because nobody knows any more what has arrived.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use parking_lot::Mutex;
use protocol::CloseCode;
use tokio::sync::{Notify, oneshot};

use super::packet::{CLOSE, NOOP};
use super::payload;
use super::route::Rejection;
use crate::{Frame, Gone, Received, Socket};

/// What one poll is answered with, about; a single packet may be larger.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(20);
/// While a client tries a WebSocket its polls are ended after so long, so that it can go over.
const RELEASE_AFTER: Duration = Duration::from_millis(50);
/// How long a client that polls may take to learn that it is over.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// How long one may take to poll, whose body is refused while it does not.
const POLL_LIMIT: Duration = Duration::from_millis(500);
/// How long one that took leave is waited for.
const OVERTAKEN_LIMIT: Duration = Duration::from_millis(100);
/// How long a client may take to go over.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Open,
    /// A WebSocket is being tried.
    Probing,
    /// The client has gone over to it.
    Upgraded,
    /// What the client posted breaks the rules: its polls still tell it so.
    Broken(CloseCode),
    /// The server takes leave with the next poll.
    Closing,
    Ended,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Wakes the task that serves the session.
    waker: Option<Waker>,
    poll: Option<oneshot::Sender<Bytes>>,
    /// The poll that waits is to be ended when nothing is being put together for it.
    is_release_due: bool,
    answer: Vec<u8>,
    is_posting: bool,
    posted: Option<oneshot::Sender<()>>,
    incoming: VecDeque<Received>,
    socket: Option<Socket>,
    has_left: bool,
    /// A body may have so many bytes; `None`: as many as any.
    max_bytes: Option<usize>,
}

impl State {
    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Probing)
    }

    fn may_be_told(&self) -> bool {
        self.is_open() || matches!(self.phase, Phase::Broken(_))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What a client's last poll is answered with.
    fn last_word(&self) -> &'static str {
        if self.has_left { NOOP } else { CLOSE }
    }

    fn answer_poll(&mut self, body: impl Into<Bytes>) -> bool {
        self.poll.take().is_some_and(|poll| poll.send(body.into()).is_ok())
    }

    /// Ends the session; whoever waits learns of it.
    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.poll = None;
        self.posted = None;
        self.socket = None;
        self.wake();
    }

    fn break_off(&mut self) {
        if self.phase != Phase::Ended {
            self.answer_poll(CLOSE);
            self.end();
        }
    }
}

/// A session over long-polling.
#[derive(Default)]
pub struct Polling {
    state: Mutex<State>,
    /// The goodbye was taken, or a probe has come to an end.
    settled: Notify,
}

/// Ends the session when a request that carries it is broken off.
struct Carried<'a> {
    polling: &'a Polling,
    is_done: bool,
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.polling.state.lock().break_off();
        }
    }
}

/// What became of a poll.
enum Begun {
    Waiting {
        answer: oneshot::Receiver<Bytes>,
        is_probing: bool,
    },
    /// The session is over, and this is its last word.
    Over(&'static str),
    Refused(Rejection),
}

// ---- requests

impl Polling {
    /// Answers a poll, as soon as there is something to say.
    pub async fn poll(&self) -> Response {
        let (mut answer, is_probing) = match self.begin_poll() {
            Begun::Waiting { answer, is_probing } => (answer, is_probing),
            Begun::Over(word) => return plain(word),
            Begun::Refused(rejection) => return rejection.into_response(),
        };
        let mut carried = Carried { polling: self, is_done: false };
        let answered = if is_probing {
            if let Ok(answered) = tokio::time::timeout(RELEASE_AFTER, &mut answer).await {
                answered
            } else {
                self.ask_for_release();
                answer.await
            }
        } else {
            answer.await
        };
        carried.is_done = true;
        answered.map_or_else(|_| Rejection::BadRequest.into_response(), body)
    }

    fn begin_poll(&self) -> Begun {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open | Phase::Probing | Phase::Broken(_) => {}
            Phase::Closing => {
                let word = state.last_word();
                state.end();
                self.settled.notify_waiters();
                return Begun::Over(word);
            }
            Phase::Upgraded => return Begun::Refused(Rejection::BadRequest),
            Phase::Ended => return Begun::Refused(Rejection::UnknownSession),
        }
        if state.poll.is_some() {
            state.break_off();
            return Begun::Refused(Rejection::BadRequest);
        }
        let (poll, answer) = oneshot::channel();
        state.poll = Some(poll);
        state.is_release_due = false;
        state.wake();
        Begun::Waiting { answer, is_probing: state.phase == Phase::Probing }
    }

    /// Takes a body of at most `max_bytes`; answered when its packets have been seen to.
    pub async fn post(&self, body: Body, max_bytes: usize) -> Response {
        let max_bytes = match self.begin_post() {
            Ok(bound) => bound.map_or(max_bytes, |bound| bound.min(max_bytes)),
            Err(rejection) => return rejection.into_response(),
        };
        let mut carried = Carried { polling: self, is_done: false };
        let read = tokio::time::timeout(BODY_LIMIT, Limited::new(body, max_bytes).collect()).await;
        let packets = match read {
            Ok(Ok(body)) => payload::decode(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                carried.is_done = true;
                self.tell_fault(CloseCode::FrameTooLarge).await;
                return StatusCode::PAYLOAD_TOO_LARGE.into_response();
            }
            Ok(Err(_)) | Err(_) => return Rejection::BadRequest.into_response(),
        };
        let Ok(packets) = packets else {
            carried.is_done = true;
            self.tell_fault(CloseCode::BadFrame).await;
            return Rejection::BadRequest.into_response();
        };
        let is_taken = match self.take(packets) {
            Some(taken) => taken.await.is_ok(),
            None => false,
        };
        carried.is_done = true;
        let mut state = self.state.lock();
        state.is_posting = false;
        if is_taken || state.has_left { plain("ok") } else { Rejection::BadRequest.into_response() }
    }

    /// How many bytes the body may have, if not as many as any.
    fn begin_post(&self) -> Result<Option<usize>, Rejection> {
        let mut state = self.state.lock();
        if !state.is_open() {
            let is_over = state.phase != Phase::Upgraded;
            return Err(if is_over { Rejection::UnknownSession } else { Rejection::BadRequest });
        }
        if std::mem::replace(&mut state.is_posting, true) {
            state.break_off();
            return Err(Rejection::BadRequest);
        }
        Ok(state.max_bytes)
    }

    /// Hands packets to the serving task. `None`: the session is over.
    fn take(&self, packets: Vec<Received>) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        if !state.is_open() {
            return None;
        }
        state.has_left |= packets.iter().any(|packet| matches!(packet, Received::Text(text) if text.as_str() == CLOSE));
        state.incoming.extend(packets);
        let (posted, taken) = oneshot::channel();
        state.posted = Some(posted);
        state.wake();
        Some(taken)
    }

    /// Ends the session for what was posted, once the serving task has told why: a client whose request
    /// is refused hears none of its polls any more.
    async fn tell_fault(&self, fault: CloseCode) {
        let (posted, ended) = oneshot::channel();
        let limit = {
            let mut state = self.state.lock();
            if !state.is_open() {
                return;
            }
            state.phase = Phase::Broken(fault);
            state.posted = Some(posted);
            state.wake();
            if state.poll.is_some() { GOODBYE_LIMIT } else { POLL_LIMIT }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            self.end();
        }
    }

    /// Brings a WebSocket to go over to and waits until that is decided.
    pub(crate) async fn bring(&self, socket: Socket) -> Result<(), Socket> {
        let settled = self.settled.notified();
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Open || state.socket.is_some() {
                return Err(socket);
            }
            state.socket = Some(socket);
            state.phase = Phase::Probing;
            state.wake();
        }
        if tokio::time::timeout(UPGRADE_LIMIT, settled).await.is_err() {
            let mut state = self.state.lock();
            if state.phase == Phase::Probing {
                state.phase = Phase::Open;
                state.wake();
            }
        }
        Ok(())
    }

    /// Only the serving task knows whether it is just putting an answer together.
    fn ask_for_release(&self) {
        let mut state = self.state.lock();
        state.is_release_due = true;
        state.wake();
    }
}

// ---- the serving task

impl Polling {
    pub(crate) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let mut state = self.state.lock();
        if let Some(packet) = state.incoming.pop_front() {
            if state.incoming.is_empty()
                && let Some(posted) = state.posted.take()
            {
                let _ = posted.send(());
            }
            return Poll::Ready(packet);
        }
        if std::mem::take(&mut state.is_release_due) {
            state.answer_poll(NOOP);
        }
        match state.phase {
            Phase::Broken(fault) => return Poll::Ready(Received::Broken(fault)),
            Phase::Ended => return Poll::Ready(Received::Gone),
            _ => {}
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready while a poll waits for more.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut state = self.state.lock();
        if !state.may_be_told() {
            return Poll::Ready(Err(Gone));
        }
        if state.poll.is_some() && state.answer.len() < ANSWER_BYTES {
            return Poll::Ready(Ok(()));
        }
        if state.poll.is_some() {
            // Full: it goes out, and what is left waits for the next poll.
            let answer = std::mem::take(&mut state.answer);
            state.answer_poll(answer);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn send(&self, frame: Frame) {
        payload::encode(frame, &mut self.state.lock().answer);
    }

    pub(crate) fn flush(&self) -> Result<(), Gone> {
        let mut state = self.state.lock();
        if state.answer.is_empty() {
            return Ok(());
        }
        let answer = std::mem::take(&mut state.answer);
        if state.answer_poll(answer) { Ok(()) } else { Err(Gone) }
    }

    /// A body may have so many bytes from now on.
    pub(crate) fn bound(&self, max_bytes: Option<usize>) {
        self.state.lock().max_bytes = max_bytes;
    }

    /// The WebSocket that was brought, once.
    pub(crate) fn take_socket(&self) -> Option<Socket> {
        self.state.lock().socket.take()
    }

    /// True while a WebSocket may be tried.
    pub(crate) fn is_probing(&self) -> bool {
        self.state.lock().phase == Phase::Probing
    }

    /// Ends the poll that waits, so that the client can go over.
    pub(crate) fn release(&self) {
        self.state.lock().answer_poll(NOOP);
    }

    /// The WebSocket does not work, or the session ends.
    pub(crate) fn probe_failed(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Probing {
            state.phase = Phase::Open;
        }
        self.settled.notify_waiters();
    }

    /// The client has gone over. False while there is something left that it posted before.
    pub(crate) fn try_upgrade(&self) -> bool {
        let mut state = self.state.lock();
        if !state.incoming.is_empty() || state.phase != Phase::Probing {
            return false;
        }
        state.phase = Phase::Upgraded;
        state.poll = None;
        self.settled.notify_waiters();
        true
    }

    /// Takes leave: with the poll that waits, or with the next one.
    pub(crate) async fn say_goodbye(&self, code: CloseCode) {
        let settled = self.settled.notified();
        let limit = {
            let mut state = self.state.lock();
            let word = state.last_word();
            if !state.may_be_told() || state.answer_poll(word) {
                state.end();
                return;
            }
            state.phase = Phase::Closing;
            match code {
                // Its poll may have been overtaken by what it posted.
                _ if state.has_left => OVERTAKEN_LIMIT,
                // Who went away will not ask again.
                CloseCode::Normal | CloseCode::PongTimeout => Duration::ZERO,
                _ => GOODBYE_LIMIT,
            }
        };
        let _ = tokio::time::timeout(limit, settled).await;
        self.end();
    }

    /// Whatever still comes is told that there is no such session.
    pub(crate) fn end(&self) {
        self.state.lock().end();
        self.settled.notify_waiters();
    }
}

fn body(bytes: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=UTF-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, bytes).into_response()
}

fn plain(text: &'static str) -> Response {
    body(Bytes::from_static(text.as_bytes()))
}
