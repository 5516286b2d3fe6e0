//! A socket as tungstenite sees it.
//!
//! It takes nothing while a frame of ours has left in part, and yields nothing of a frame that is too
//! large for who sends it, or of a message of such frames. The invariant: tungstenite sees the header of
//! none of them, because it would make room for all that the header announces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The gate between a socket and tungstenite.
pub(crate) struct Gate<S> {
    pub(crate) io: S,
    /// Nothing may be written: a frame of ours has left in part.
    pub(crate) is_shut: bool,
    /// What was read and not yielded yet.
    held: Bytes,
    bound: Option<Box<Bound>>,
}

/// Follows a client's frames by their headers alone (RFC 6455 section 5.2).
struct Bound {
    max_bytes: u64,
    header: [u8; 10],
    /// Bytes of the header so far.
    have: usize,
    /// Bytes of the payload and its mask that are still to come.
    left: u64,
    /// Bytes of the message so far whose last frame is still to come.
    message: u64,
}

impl<S> Gate<S> {
    /// Of `io`; `read` was read from it already.
    pub(crate) fn new(io: S, read: &[u8]) -> Self {
        // A copy, because `read` would bring the whole buffer of the HTTP server along.
        Self { io, is_shut: false, held: Bytes::copy_from_slice(read), bound: None }
    }

    /// From its first frame on a client may send frames of `max_bytes`, or from now on of other sizes;
    /// `None`: of any size for good.
    pub(crate) fn bound(&mut self, max_bytes: Option<usize>) {
        match (&mut self.bound, max_bytes) {
            (Some(bound), Some(max_bytes)) => bound.max_bytes = max_bytes as u64,
            (bound, max_bytes) => *bound = max_bytes.map(|max_bytes| Box::new(Bound::new(max_bytes as u64))),
        }
    }

    /// How many of these bytes tungstenite may see.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(bound) = &mut self.bound else { return Ok(bytes.len()) };
        match bound.pass(bytes) {
            0 if !bytes.is_empty() => Err(io::Error::new(io::ErrorKind::FileTooLarge, "a frame too large")),
            count => Ok(count),
        }
    }
}

impl Bound {
    fn new(max_bytes: u64) -> Self {
        Self { max_bytes, header: [0; 10], have: 0, left: 0, message: 0 }
    }

    /// How many of these bytes come before it is known that a message is too large.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let step = self.left.min((bytes.len() - at) as u64);
                self.left -= step;
                at += step as usize;
                continue;
            }
            self.header[self.have] = bytes[at];
            match self.payload_bytes(self.have + 1) {
                Some(payload) if payload.saturating_add(self.message) > self.max_bytes => return at,
                Some(payload) => {
                    let (is_last, is_control) = (self.header[0] & 0x80 != 0, self.header[0] & 0x08 != 0);
                    if !is_control {
                        self.message = if is_last { 0 } else { self.message + payload };
                    }
                    let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
                    (self.left, self.have) = (payload + mask, 0);
                }
                None => self.have += 1,
            }
            at += 1;
        }
        at
    }

    /// What the header announces, when it has just become known with so many bytes of it.
    fn payload_bytes(&self, have: usize) -> Option<u64> {
        let [_, short, long @ ..] = &self.header;
        match (have, short & 0x7f) {
            (2, short @ 0..=125) => Some(u64::from(short)),
            (4, 126) => Some(u64::from(u16::from_be_bytes([long[0], long[1]]))),
            (10, 127) => Some(u64::from_be_bytes(*long)),
            _ => None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        if !gate.held.is_empty() {
            let held = gate.held.slice(..gate.held.len().min(buf.remaining()));
            let count = gate.pass(&held)?;
            buf.put_slice(&held[..count]);
            gate.held.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut gate.io).poll_read(cx, buf))?;
        if gate.bound.is_some() {
            let read = &buf.filled()[before..];
            let count = gate.pass(read)?;
            gate.held = Bytes::copy_from_slice(&read[count..]);
            buf.set_filled(before + count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    /// While it is shut, whoever writes the rest of our frame is woken, and that is the same task.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_shut { Poll::Pending } else { Pin::new(&mut self.io).poll_write(cx, bytes) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    fn frame(payload: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match payload {
            0..=125 => frame.push(0x80 | payload as u8),
            126..=65_535 => {
                frame.push(0x80 | 0x7e);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 0x7f);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        // The mask looks like headers of enormous frames, and so does the payload.
        frame.extend(std::iter::repeat_n(0xff, payload + 4));
        frame
    }

    /// Reads in steps of `step` bytes; what came, and how it ended.
    async fn read(gate: &mut Gate<&[u8]>, step: usize) -> (Vec<u8>, Option<io::ErrorKind>) {
        let (mut all, mut some) = (Vec::new(), vec![0; step]);
        loop {
            match gate.read(&mut some).await {
                Ok(0) => return (all, None),
                Ok(count) => all.extend_from_slice(&some[..count]),
                Err(error) => return (all, Some(error.kind())),
            }
        }
    }

    #[tokio::test]
    async fn frames_pass_up_to_the_bound_and_of_a_larger_one_not_even_its_header() {
        let small: Vec<u8> = [0, 1, 125, 126, 1000, 65_535, 65_536, 70_000].iter().flat_map(|it| frame(*it)).collect();
        let all = [small.clone(), frame(70_001)].concat();
        for step in [1, 2, 3, 7, 1024, 1 << 20] {
            for already_read in [0, 1, 5, 2000] {
                let mut gate = Gate::new(&all[already_read..], &all[..already_read]);
                gate.bound(Some(70_000));
                let (passed, error) = read(&mut gate, step).await;
                assert_eq!(error, Some(io::ErrorKind::FileTooLarge));
                // Nine bytes of the header do not say yet how large the frame is.
                assert!(passed.starts_with(&small) && passed.len() <= small.len() + 9, "{step} {already_read}");
            }
        }
    }

    #[tokio::test]
    async fn parts_of_a_message_are_bounded_together() {
        let part = |first: u8| [&[first][..], &frame(100)[1..]].concat();
        let (begin, middle, end, ping) = (part(0x02), part(0x00), part(0x80), part(0x89));
        let good = [&begin, &ping, &middle, &end, &begin, &middle, &ping, &end].map(Vec::as_slice).concat();
        let all = [good.clone(), begin, middle.clone(), middle.clone(), middle].concat();
        let mut gate = Gate::new(&all[..], &[]);
        gate.bound(Some(300));
        let (passed, error) = read(&mut gate, 1024).await;
        assert_eq!(error, Some(io::ErrorKind::FileTooLarge));
        assert!((good.len() + 300..all.len() - 100).contains(&passed.len()), "{}", passed.len());
    }

    #[tokio::test]
    async fn what_was_held_back_passes_once_it_may() {
        let all = [frame(10), frame(100_000), frame(1)].concat();
        let mut gate = Gate::new(&all[..], &[]);
        gate.bound(Some(1000));
        let mut passed = vec![0; frame(10).len()];
        gate.read_exact(&mut passed).await.expect("the first frame");
        gate.bound(None);
        passed.extend(read(&mut gate, 1000).await.0);
        assert!(passed == all);
    }
}
