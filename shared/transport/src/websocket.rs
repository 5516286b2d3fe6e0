//! A link over one WebSocket (RFC 6455), small while idle.
//!
//! Knows no dialect. tungstenite reads, and writes what the protocol itself asks for: pongs and the
//! close. What we have to say leaves by `Frames`. The invariant: the two never write into each
//! other's frames, and what a client sends is bounded before it is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, SinkExt as _, Stream as _};
use protocol::CloseCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::frames::Frames;
use crate::gate::Gate;
use crate::{Frame, Gone, Link, Received};

/// What one read takes at most; this much memory every idle socket holds. A larger frame makes the
/// buffer grow to its size.
const READ_BYTES: usize = 1024;
/// Pongs that may wait for a client that does not read; of more only the last one counts.
const PONG_BYTES: usize = 512;
/// How long a goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// What a client may still send during the goodbye before it is cut off.
const GOODBYE_BYTES: usize = 32 * 1024 * 1024;

/// A WebSocket whose handshake is done.
pub struct WebSocket<S> {
    /// Boxed, because it passes through several phases and each of them would keep room for it.
    inner: Box<Inner<S>>,
}

struct Inner<S> {
    stream: WebSocketStream<Gate<S>>,
    frames: Frames,
    /// tungstenite may have a pong or a close to write.
    owes: bool,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> WebSocket<S> {
    /// Speaks over `io`; `read` was read from it already. A message from the client may have
    /// `max_bytes`.
    pub async fn new(io: S, read: Bytes, max_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(PONG_BYTES)
            .max_message_size(Some(max_bytes))
            .max_frame_size(Some(max_bytes));
        let stream = WebSocketStream::from_raw_socket(Gate::new(io, &read), Role::Server, Some(config)).await;
        Self { inner: Box::new(Inner { stream, frames: Frames::default(), owes: false }) }
    }

    async fn say_goodbye(mut self, code: CloseCode) {
        if std::future::poll_fn(|cx| self.inner.poll_write(cx)).await.is_err() {
            return;
        }
        let frame = CloseFrame { code: code.number().into(), reason: code.reason().into() };
        // If the client has said goodbye itself, its own code goes back with the flush.
        let _ = self.inner.stream.send(Message::Close(Some(frame))).await;
        let _ = self.inner.stream.flush().await;
        let io = &mut self.inner.stream.get_mut().io;
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

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Inner<S> {
    /// Writes all that waits, tungstenite's part at the end of a frame of ours.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.frames.is_midway() {
            ready!(self.poll_write_frames(cx))?;
        }
        if self.owes {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(|_| Gone)?;
            self.owes = false;
        }
        self.poll_write_frames(cx)
    }

    fn poll_write_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let gate = self.stream.get_mut();
        let written = self.frames.poll_write(&mut gate.io, cx);
        gate.is_shut = self.frames.is_midway();
        written.map_err(|_| Gone)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Link for WebSocket<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let inner = &mut *self.inner;
        Pin::new(&mut inner.stream).poll_next(cx).map(|next| match next {
            Some(Ok(Message::Text(text))) => Received::Text(text),
            Some(Ok(Message::Binary(data))) => Received::Binary(data),
            Some(Ok(Message::Ping(_))) => {
                inner.owes = true;
                Received::Alive
            }
            Some(Ok(Message::Pong(_))) => Received::Alive,
            Some(Ok(Message::Close(_) | Message::Frame(_))) | None => Received::Gone,
            Some(Err(error)) => fault(&error).map_or(Received::Gone, Received::Broken),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.inner.frames.is_full() { self.inner.poll_write(cx) } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, frame: Frame) {
        match frame {
            Frame::Text(text) => self.inner.frames.text(text),
            Frame::Binary(data) => self.inner.frames.binary(data),
            Frame::Ping => self.inner.frames.ping(),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.inner.poll_write(cx)
    }

    fn backlog(&self) -> usize {
        self.inner.frames.held_bytes()
    }

    fn bound(&mut self, max_bytes: Option<usize>) {
        self.inner.stream.get_mut().bound(max_bytes);
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
        Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Some(CloseCode::FrameTooLarge),
        Error::Utf8(_) => Some(CloseCode::InvalidUtf8),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::BadFrame),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use tokio::io::DuplexStream;

    type Client = WebSocketStream<DuplexStream>;

    /// A server's link and a client's socket over a pipe that holds `bytes`.
    async fn pair(bytes: usize) -> (WebSocket<DuplexStream>, Client) {
        let (here, there) = tokio::io::duplex(bytes);
        let client = WebSocketStream::from_raw_socket(there, Role::Client, None).await;
        (WebSocket::new(here, Bytes::new(), 256 * 1024).await, client)
    }

    /// Reads until the client has gone, sending what waits; the link, and all that came.
    async fn serve(mut link: WebSocket<DuplexStream>) -> (WebSocket<DuplexStream>, Vec<Received>) {
        let mut all = Vec::new();
        loop {
            let received = std::future::poll_fn(|cx| {
                if let Poll::Ready(received) = link.poll_receive(cx) {
                    return Poll::Ready(received);
                }
                let _ = link.poll_flush(cx);
                Poll::Pending
            });
            match received.await {
                Received::Gone => return (link, all),
                received => all.push(received),
            }
        }
    }

    #[tokio::test]
    async fn pongs_and_our_frames_leave_whole_through_the_narrowest_pipe() {
        let (mut link, client) = pair(7).await;
        let texts: Vec<String> = (0..50).map(|number| format!("{number} ").repeat(number * 10)).collect();
        for text in &texts {
            link.send(Frame::Text(text.clone().into()));
        }
        let (mut sink, mut stream) = client.split();
        let ping = async {
            for number in 0..20u8 {
                sink.send(Message::Ping(vec![number; 100].into())).await.expect("sent");
            }
            sink
        };
        let (mut got, mut pongs) = (Vec::new(), Vec::new());
        let read = async {
            while got.len() < texts.len() || pongs.last() != Some(&19) {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => got.push(text.to_string()),
                    Some(Ok(Message::Pong(data))) => pongs.push(data[0]),
                    other => panic!("{other:?}"),
                }
            }
        };
        let client = async {
            let (mut sink, ()) = tokio::join!(ping, read);
            sink.send(Message::Close(None)).await.expect("sent");
        };
        let ((_, received), ()) = tokio::join!(serve(link), client);
        assert_eq!(received, vec![Received::Alive; 20]);
        assert_eq!(got, texts);
        assert!(pongs.is_sorted(), "{pongs:?}");
    }

    #[tokio::test]
    async fn who_pings_and_never_reads_costs_no_memory() {
        let (link, client) = pair(64 * 1024).await;
        let (mut sink, stream) = client.split();
        let talk = async {
            for _ in 0..20_000 {
                sink.send(Message::Ping(vec![7; 125].into())).await.expect("sent");
            }
            sink.send(Message::Close(None)).await.expect("sent");
        };
        let ((), (link, received)) = tokio::join!(talk, serve(link));
        assert_eq!(received.len(), 20_000);
        let read = stream.filter(|message| std::future::ready(message.as_ref().is_ok_and(Message::is_pong))).count();
        let (pongs, ()) = tokio::join!(read, link.close(CloseCode::Normal));
        assert!((1..600).contains(&pongs), "the pipe's fill and a few: {pongs}");
    }

    #[tokio::test]
    async fn a_goodbye_is_answered_with_its_own_code() {
        let (link, mut client) = pair(1024).await;
        client.send(Message::Close(Some(CloseFrame { code: 4000.into(), reason: "bye".into() }))).await.expect("sent");
        let (link, _) = serve(link).await;
        let answer = async {
            match client.next().await {
                Some(Ok(Message::Close(Some(frame)))) => u16::from(frame.code),
                other => panic!("{other:?}"),
            }
        };
        let (code, ()) = tokio::join!(answer, link.close(CloseCode::Normal));
        assert_eq!(code, 4000);
    }
}
