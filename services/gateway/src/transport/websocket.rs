//! A link over one WebSocket (RFC 6455), small while idle.
//!
//! Knows no dialect. The invariant: an idle socket holds no more than its read buffer, and what a
//! client sends is bounded before it is read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use domain::limits::FRAME_BYTES;
use futures_util::{Sink as _, SinkExt as _, Stream as _};
use protocol::CloseCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Frame, Gone, Link, Received};

/// What one read takes at most; this much memory every idle socket holds.
const READ_BYTES: usize = 2048;
/// What is gathered before it is written.
const WRITE_BYTES: usize = 4096;
/// How long a goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// What a client may still send during the goodbye before it is cut off.
const GOODBYE_BYTES: usize = 32 * 1024 * 1024;

/// A WebSocket whose handshake is done.
pub(crate) struct WebSocket<S> {
    /// Boxed, because it passes through several phases and each of them would keep room for it.
    stream: Box<WebSocketStream<S>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> WebSocket<S> {
    /// Speaks over `io`; `read` was read from it already.
    pub(crate) async fn new(io: S, read: Bytes) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(FRAME_BYTES))
            .max_frame_size(Some(FRAME_BYTES));
        let stream = WebSocketStream::from_partially_read(io, read.into(), Role::Server, Some(config)).await;
        Self { stream: Box::new(stream) }
    }

    async fn say_goodbye(mut self, code: CloseCode) {
        let frame = CloseFrame { code: code.number().into(), reason: code.reason().into() };
        if self.stream.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        let mut io = self.stream.into_inner();
        if io.shutdown().await.is_err() {
            return;
        }
        // Closing while the client still sends would reset the connection, and the client might
        // never read why.
        let (mut discarded, mut rest) = (0, [0u8; READ_BYTES]);
        while let Ok(count) = io.read(&mut rest).await {
            discarded += count;
            if count == 0 || discarded > GOODBYE_BYTES {
                return;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Link for WebSocket<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        Pin::new(&mut *self.stream).poll_next(cx).map(|next| match next {
            Some(Ok(Message::Text(text))) => Received::Text(text),
            Some(Ok(Message::Binary(data))) => Received::Binary(data),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::Alive,
            Some(Ok(Message::Close(_) | Message::Frame(_))) | None => Received::Gone,
            Some(Err(error)) => fault(&error).map_or(Received::Gone, Received::Broken),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut *self.stream).poll_ready(cx).map_err(|_| Gone)
    }

    fn send(&mut self, frame: Frame) -> Result<(), Gone> {
        let message = match frame {
            Frame::Text(text) => Message::Text(text),
            Frame::Ping => Message::Ping(Bytes::new()),
        };
        Pin::new(&mut *self.stream).start_send(message).map_err(|_| Gone)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut *self.stream).poll_flush(cx).map_err(|_| Gone)
    }

    async fn close(self, code: CloseCode) {
        // Over the time it is cut off.
        let _ = tokio::time::timeout(GOODBYE_LIMIT, self.say_goodbye(code)).await;
    }
}

/// The close code for what a client did wrong; `None` when it just went away.
fn fault(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::FrameTooLarge),
        Error::Utf8(_) => Some(CloseCode::InvalidUtf8),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::BadFrame),
        _ => None,
    }
}
