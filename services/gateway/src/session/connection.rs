//! A link and what waits for it: the one place where both directions are polled.
//!
//! Knows no phase of a session. The invariant: all that waits is sent with one flush, and neither
//! reading nor writing starves the other.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use protocol::CloseCode;
use transport::engineio::packet;
use transport::{Frame, Gone, Link, Received};

use crate::codec::Dialect;
use crate::handle::outbox::CONGESTED_BYTES;
use crate::handle::{Handle, Signal};

/// After a frame of so many bytes no other is handed to the link before it has left: a link that
/// takes nothing holds one of them at most.
const LARGE: usize = 16 * 1024;

/// A client's connection.
pub(crate) struct Connection<L> {
    pub(crate) link: L,
    pub(crate) handle: Arc<Handle>,
    ping_due: bool,
    unflushed: bool,
    /// Bytes of answers handed to the link since it was empty.
    answers: usize,
    /// Bytes in the link when it was last looked at.
    backlog: usize,
    /// Nothing was polled since the task was woken.
    is_woken: bool,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has gone.
    Gone,
    /// The client has left the namespace and may come into it again.
    Left,
    /// We close, for that reason.
    Close(CloseCode),
}

impl End {
    /// True when a client that never came in is to blame for it.
    pub(crate) fn is_failure(self) -> bool {
        use CloseCode::{BadFrame, Forbidden, FrameTooLarge, InvalidUtf8, Unauthenticated};
        matches!(self, Self::Close(BadFrame | Forbidden | FrameTooLarge | InvalidUtf8 | Unauthenticated))
    }
}

/// What a connection's task is to see to next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Signal(Signal),
    Received(Received),
}

impl<L: Link> Connection<L> {
    pub(crate) fn new(link: L, handle: Arc<Handle>) -> Self {
        Self { link, handle, ping_due: false, unflushed: false, answers: 0, backlog: 0, is_woken: true }
    }

    /// The same link for another session.
    pub(crate) fn renewed(self, handle: Arc<Handle>) -> Self {
        Self { handle, ..self }
    }

    /// Sends what waits before anything else is looked at, once each time the task was woken. The
    /// runtime grants a task so much input and output in one go; reading would use up all of it.
    pub(crate) fn poll_send_first(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.is_woken) {
            // An error comes again when the rest is sent.
            let _ = self.poll_send(cx, false);
        }
    }

    /// The next thing to see to; meanwhile sends what waits. Reads only if `may_read`.
    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<Step> {
        self.handle.register(cx.waker());
        self.poll_send_first(cx);
        while let Some(signal) = self.handle.take_signal() {
            if signal != Signal::Ping {
                return Poll::Ready(Step::Signal(signal));
            }
            self.ping_due = true;
        }
        if may_read && let Poll::Ready(received) = self.link.poll_receive(cx) {
            self.handle.heard();
            return Poll::Ready(Step::Received(received));
        }
        match self.poll_send(cx, !may_read) {
            Poll::Ready(Err(Gone)) => Poll::Ready(Step::Received(Received::Gone)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.is_woken = true;
                Poll::Pending
            }
        }
    }

    /// Sends what waits. Ready when nothing waits any more.
    fn poll_send(&mut self, cx: &mut Context<'_>, counts_as_life: bool) -> Poll<Result<(), Gone>> {
        let sent = self.poll_send_all(cx, counts_as_life);
        if sent.is_ready() {
            self.answers = 0;
        }
        let backlog = if sent.is_ready() { 0 } else { self.link.backlog() };
        if sent.is_pending() || backlog != self.backlog {
            self.backlog = backlog;
            self.handle.note_transport(backlog, sent.is_pending());
        }
        sent
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>, counts_as_life: bool) -> Poll<Result<(), Gone>> {
        loop {
            if !self.ping_due && self.handle.is_idle() {
                break;
            }
            if self.link.poll_ready(cx)?.is_pending() {
                return Poll::Pending;
            }
            let Some(frame) = self.next_frame() else { break };
            let is_large = frame.len() >= LARGE;
            self.link.send(frame);
            self.unflushed = true;
            if counts_as_life {
                // A client that is not read on cannot say otherwise that it is there.
                self.handle.heard();
            }
            if is_large && self.poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
        }
        self.poll_flush(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.unflushed {
            if self.link.poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn next_frame(&mut self) -> Option<Frame> {
        if std::mem::take(&mut self.ping_due) {
            return Some(self.ping());
        }
        let popped = self.handle.pop()?;
        if popped.is_answer {
            self.answers += popped.bytes.len();
        }
        Some(self.handle.dialect.frame(popped.bytes))
    }

    /// True while answers wait that the client does not read: it should not be given more to ask for.
    pub(crate) fn is_congested(&self) -> bool {
        let waiting = self.handle.answer_bytes() + self.answers.min(self.backlog);
        waiting > CONGESTED_BYTES && !self.link.is_going_over()
    }

    /// The question whether the client is there, in the way of its dialect. It goes before all that
    /// waits: a client on a slow line would get it too late to answer in time.
    fn ping(&self) -> Frame {
        match self.handle.dialect {
            Dialect::Native | Dialect::Protobuf => Frame::Ping,
            Dialect::SocketIo => Frame::Text(Bytes::from_static(packet::PING.as_bytes())),
        }
    }

    /// Waits until all that waits was sent.
    pub(crate) async fn sent(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| {
            self.handle.register(cx.waker());
            self.poll_send(cx, false)
        })
        .await
    }

    /// Sends something past the queue, which may be closed already.
    pub(crate) async fn send_last(&mut self, words: Vec<Bytes>) -> Result<(), Gone> {
        for word in words {
            std::future::poll_fn(|cx| self.link.poll_ready(cx)).await?;
            self.link.send(self.handle.dialect.frame(word));
        }
        std::future::poll_fn(|cx| self.link.poll_flush(cx)).await
    }

    /// Reads and forgets until the client has gone.
    pub(crate) async fn gone(&mut self) {
        loop {
            let received = std::future::poll_fn(|cx| self.link.poll_receive(cx)).await;
            if matches!(received, Received::Gone | Received::Broken(_)) {
                return;
            }
        }
    }
}
