//! A socket made of memory: says what it was given, takes everything.
//!
//! The invariant: it never blocks a writer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Clones are the same socket.
#[derive(Debug, Clone, Default)]
pub struct Pipe(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    incoming: Vec<u8>,
    written: Vec<u8>,
}

impl Pipe {
    /// What the other side sends next: one frame of 126 to 65535 bytes, masked as a client's is (RFC 6455 section 5.2).
    pub fn say(&self, is_text: bool, payload: &[u8]) {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let incoming = &mut self.0.lock().incoming;
        incoming.push(if is_text { 0x81 } else { 0x82 });
        // The length follows in two bytes.
        incoming.push(0xfe);
        incoming.extend((payload.len() as u16).to_be_bytes());
        incoming.extend(MASK);
        incoming.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// True if that is in what was written since this was asked last.
    pub fn got(&self, word: &str) -> bool {
        let written = &mut self.0.lock().written;
        let found = written.windows(word.len()).any(|part| part == word.as_bytes());
        // Keeps its memory: what is counted allocates nothing for it.
        written.clear();
        found
    }
}

impl Pipe {
    /// The same, for the last time: gives the memory back.
    pub fn drained(&self, word: &str) -> bool {
        let found = self.got(word);
        self.0.lock().written = Vec::new();
        found
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let incoming = &mut self.0.lock().incoming;
        if incoming.is_empty() {
            return Poll::Pending;
        }
        let count = incoming.len().min(buffer.remaining());
        buffer.put_slice(&incoming[..count]);
        incoming.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = &mut self.0.lock().written;
        for slice in slices {
            written.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
