//! One session as the task that serves it sees it, whatever carries it at the moment.
//!
//! Knows no user. The invariant: frames are handed to exactly one transport, and what came over the
//! old one comes before what comes over the new one.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use protocol::CloseCode;
use telemetry::Gauge;

use super::packet::{self, PROBE, PROBED, UPGRADE};
use super::polling::Polling;
use super::server::Registered;
use crate::{Frame, Gone, Link, Received, Socket};

/// A frame by which a client goes over, at most.
const UPGRADE_BYTES: usize = 125;

/// An Engine.IO session.
pub struct EngineLink {
    registered: Registered,
    wire: Wire,
    /// The bound on frames of a WebSocket.
    max_bytes: Option<usize>,
}

enum Wire {
    Socket(Socket),
    Polling(Box<Carried>),
}

/// What carries a session that has not gone over to a WebSocket (yet).
struct Carried {
    polling: Arc<Polling>,
    probe: Option<Probe>,
    _counted: Counted,
}

/// A WebSocket that is being tried.
struct Probe {
    socket: Socket,
    /// It was asked whether it works.
    is_asked: bool,
    /// The client has said that it goes over.
    is_chosen: bool,
}

/// Counts a session while it polls.
struct Counted;

impl Counted {
    fn new() -> Self {
        Gauge::SocketsPolling.add(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        Gauge::SocketsPolling.add(-1.0);
    }
}

impl EngineLink {
    pub(crate) fn over_socket(registered: Registered, socket: Socket) -> Self {
        Self { registered, wire: Wire::Socket(socket), max_bytes: None }
    }

    pub(crate) fn over_polling(registered: Registered, polling: Arc<Polling>) -> Self {
        let carried = Carried { polling, probe: None, _counted: Counted::new() };
        Self { registered, wire: Wire::Polling(Box::new(carried)), max_bytes: None }
    }

    /// True while the client polls.
    fn is_polling(&self) -> bool {
        matches!(self.wire, Wire::Polling(_))
    }
}

impl Carried {
    /// Looks after the WebSocket that is tried; ready with it when the client has gone over.
    fn poll_probe(&mut self, cx: &mut Context<'_>) -> Poll<Socket> {
        if self.probe.is_none() {
            let brought = self.polling.take_socket();
            self.probe = brought.map(|mut socket| {
                socket.bound(Some(UPGRADE_BYTES));
                Probe { socket, is_asked: false, is_chosen: false }
            });
        }
        let Some(probe) = &mut self.probe else { return Poll::Pending };
        while !probe.is_chosen {
            if probe.socket.poll_flush(cx) == Poll::Ready(Err(Gone)) || !self.polling.is_probing() {
                return self.give_up();
            }
            match probe.socket.poll_receive(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Received::Text(text)) if text.as_str() == PROBE && !probe.is_asked => {
                    probe.is_asked = true;
                    probe.socket.send(Frame::Text(Bytes::from_static(PROBED.as_bytes())));
                    self.polling.release();
                }
                Poll::Ready(Received::Text(text)) if text.as_str() == UPGRADE && probe.is_asked => {
                    probe.is_chosen = true;
                }
                Poll::Ready(Received::Alive) => {}
                Poll::Ready(_) => return self.give_up(),
            }
        }
        if !self.polling.try_upgrade() {
            return if self.polling.is_probing() { Poll::Pending } else { self.give_up() };
        }
        self.probe.take().map_or(Poll::Pending, |probe| Poll::Ready(probe.socket))
    }

    fn give_up(&mut self) -> Poll<Socket> {
        self.probe = None;
        self.polling.probe_failed();
        Poll::Pending
    }
}

impl Link for EngineLink {
    fn greeting(&self) -> Option<Bytes> {
        let config = self.registered.config();
        Some(packet::open(&self.registered.sid(), self.is_polling(), config).into())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let max_bytes = self.max_bytes;
        loop {
            match &mut self.wire {
                Wire::Socket(socket) => return socket.poll_receive(cx),
                Wire::Polling(carried) => match carried.poll_probe(cx) {
                    Poll::Ready(mut socket) => {
                        socket.bound(max_bytes);
                        self.registered.upgraded();
                        self.wire = Wire::Socket(socket);
                    }
                    // What was posted is left to be read after an upgrade was decided, too.
                    Poll::Pending => match carried.polling.poll_receive(cx) {
                        Poll::Pending => return Poll::Pending,
                        received @ Poll::Ready(_) => return received,
                    },
                },
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match &mut self.wire {
            Wire::Socket(socket) => socket.poll_ready(cx),
            Wire::Polling(carried) => carried.polling.poll_ready(cx),
        }
    }

    fn send(&mut self, frame: Frame) {
        match &mut self.wire {
            Wire::Socket(socket) => socket.send(frame),
            Wire::Polling(carried) => carried.polling.send(frame),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match &mut self.wire {
            Wire::Socket(socket) => socket.poll_flush(cx),
            Wire::Polling(carried) => Poll::Ready(carried.polling.flush()),
        }
    }

    fn is_going_over(&self) -> bool {
        match &self.wire {
            Wire::Socket(_) => false,
            Wire::Polling(carried) => carried.polling.is_probing(),
        }
    }

    fn bound(&mut self, max_bytes: Option<usize>) {
        self.max_bytes = max_bytes;
        match &mut self.wire {
            Wire::Socket(socket) => socket.bound(max_bytes),
            Wire::Polling(carried) => carried.polling.bound(max_bytes),
        }
    }

    fn backlog(&self) -> usize {
        match &self.wire {
            Wire::Socket(socket) => socket.backlog(),
            // What one poll is answered with is on its way.
            Wire::Polling(_) => 0,
        }
    }

    async fn close(self, code: CloseCode) {
        match self.wire {
            Wire::Socket(socket) => socket.close(code).await,
            Wire::Polling(carried) => Box::pin(carried.polling.say_goodbye(code)).await,
        }
        drop(self.registered);
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // After an upgrade nobody waits there any more.
        self.polling.end();
    }
}
