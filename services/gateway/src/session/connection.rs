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
use crate::handle::{Handle, Signal};

/// A client's connection.
pub(crate) struct Connection<L> {
    pub(crate) link: L,
    pub(crate) handle: Arc<Handle>,
    ping_due: bool,
    unflushed: bool,
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

/// What a connection's task is to see to next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Signal(Signal),
    Received(Received),
}

impl<L: Link> Connection<L> {
    pub(crate) fn new(link: L, handle: Arc<Handle>) -> Self {
        Self { link, handle, ping_due: false, unflushed: false, is_woken: true }
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
        loop {
            if !self.ping_due && self.handle.is_idle() {
                break;
            }
            if self.link.poll_ready(cx)?.is_pending() {
                return Poll::Pending;
            }
            let Some(frame) = self.next_frame() else { break };
            self.link.send(frame);
            self.unflushed = true;
            if counts_as_life {
                // A client that is not read on cannot say otherwise that it is there.
                self.handle.heard();
            }
        }
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
        self.handle.pop().map(|bytes| self.handle.dialect.frame(bytes))
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
