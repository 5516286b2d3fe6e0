//! A WebSocket over whatever the HTTP server read from.
//!
//! Knows no dialect. The invariant: the usual kind costs nothing extra.

use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use protocol::CloseCode;
use tokio::net::TcpStream;

use crate::{Frame, Gone, Link, Received, WebSocket};

/// A WebSocket.
pub enum Socket {
    /// As it nearly always is.
    Plain(WebSocket<TcpStream>),
    /// Over a server that wraps its sockets.
    Wrapped(WebSocket<TokioIo<Upgraded>>),
}

macro_rules! either {
    ($self:ident, $socket:ident => $call:expr) => {
        match $self {
            Socket::Plain($socket) => $call,
            Socket::Wrapped($socket) => $call,
        }
    };
}

impl Link for Socket {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        either!(self, socket => socket.poll_receive(cx))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        either!(self, socket => socket.poll_ready(cx))
    }

    fn send(&mut self, frame: Frame) {
        either!(self, socket => socket.send(frame));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        either!(self, socket => socket.poll_flush(cx))
    }

    fn backlog(&self) -> usize {
        either!(self, socket => socket.backlog())
    }

    async fn close(self, code: CloseCode) {
        match self {
            Self::Plain(socket) => socket.close(code).await,
            Self::Wrapped(socket) => Box::pin(socket.close(code)).await,
        }
    }
}
