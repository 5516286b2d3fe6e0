//! WebSocket frames on their way out (RFC 6455 section 5.2): a header of our own, a shared payload.
//!
//! A text goes from the outbox to the socket as it is, whoever else it goes to: nothing long is copied,
//! many frames leave with one call. The invariant: frames leave whole and in order.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

/// Frames that may wait; more are not taken before some have left.
const WAITING: usize = 256;
/// Bytes that may wait.
const WAITING_BYTES: usize = 32 * 1024;
/// So little is copied together: one piece costs the kernel less than several.
const SHORT_BYTES: usize = 1024;
/// Frames that leave with one call.
const AT_ONCE: usize = 32;
/// Final frame, opcode 1.
const TEXT: u8 = 0x81;
/// Final frame, opcode 2.
const BINARY: u8 = 0x82;
/// Final frame, opcode 9.
const PING: u8 = 0x89;

/// Frames that have not left yet. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    waiting: VecDeque<Frame>,
    bytes: usize,
    /// How much of the first one has left.
    left: usize,
}

#[derive(Debug)]
struct Frame {
    header: [u8; 10],
    header_len: u8,
    payload: Bytes,
}

impl Frame {
    fn new(first: u8, payload: Bytes) -> Self {
        let mut header = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let header_len = match payload.len() {
            len @ ..=125 => {
                header[1] = len as u8;
                2
            }
            len @ ..=0xffff => {
                header[1] = 126;
                header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                4
            }
            len => {
                header[1] = 127;
                header[2..].copy_from_slice(&(len as u64).to_be_bytes());
                10
            }
        };
        Self { header, header_len, payload }
    }

    fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }

    fn len(&self) -> usize {
        usize::from(self.header_len) + self.payload.len()
    }
}

impl Frames {
    pub(crate) fn text(&mut self, text: impl Into<Bytes>) {
        self.push(Frame::new(TEXT, text.into()));
    }

    pub(crate) fn binary(&mut self, data: Bytes) {
        self.push(Frame::new(BINARY, data));
    }

    pub(crate) fn ping(&mut self) {
        self.push(Frame::new(PING, Bytes::new()));
    }

    fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.waiting.push_back(frame);
    }

    /// True when no more should be added.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING || self.bytes >= WAITING_BYTES
    }

    /// Memory of what waits, about: a frame stays whole until all of it has left.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes + 2 * self.waiting.len() * size_of::<Frame>()
    }

    /// True when a frame has left in part: nothing else may be written.
    pub(crate) fn is_midway(&self) -> bool {
        self.left > 0
    }

    /// Writes all that waits; ready when all of it has left.
    pub(crate) fn poll_write<S>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.waiting.is_empty() {
            let mut short = [0; SHORT_BYTES];
            let io = Pin::new(&mut *io);
            let written = if let Some(length) = self.copy(&mut short) {
                ready!(io.poll_write(cx, &short[..length]))?
            } else {
                let mut slices = [IoSlice::new(&[]); 2 * AT_ONCE];
                let count = self.fill(&mut slices);
                ready!(io.poll_write_vectored(cx, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.forget(written);
        }
        self.waiting = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    /// Copies everything that waits, if it is short; how many bytes that are.
    fn copy(&self, short: &mut [u8; SHORT_BYTES]) -> Option<usize> {
        if self.bytes - self.left > SHORT_BYTES {
            return None;
        }
        let (mut length, mut skip) = (0, self.left);
        for frame in &self.waiting {
            for part in [frame.header(), &frame.payload] {
                let Some(part) = part.get(skip..) else {
                    skip -= part.len();
                    continue;
                };
                skip = 0;
                short.get_mut(length..length + part.len())?.copy_from_slice(part);
                length += part.len();
            }
        }
        Some(length)
    }

    /// Fills in what leaves next; how many slices that are.
    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; 2 * AT_ONCE]) -> usize {
        let (mut count, mut skip) = (0, self.left);
        for frame in self.waiting.iter().take(AT_ONCE) {
            for part in [frame.header(), &frame.payload] {
                if skip >= part.len() {
                    skip -= part.len();
                    continue;
                }
                slices[count] = IoSlice::new(&part[skip..]);
                count += 1;
                skip = 0;
            }
        }
        count
    }

    fn forget(&mut self, written: usize) {
        self.left += written;
        while let Some(first) = self.waiting.front()
            && self.left >= first.len()
        {
            self.left -= first.len();
            self.bytes -= first.len();
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    /// Takes so many bytes with each call, and every other call nothing.
    struct Narrow {
        taken: Vec<u8>,
        takes: usize,
        is_vectored: bool,
        is_blocked: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.is_blocked = !self.is_blocked;
            if self.is_blocked {
                return Poll::Pending;
            }
            let count = bytes.len().min(self.takes);
            self.taken.extend(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let offered = if self.is_vectored { slices } else { &slices[..1] };
            let bytes: Vec<u8> = offered.iter().flat_map(|slice| slice.iter()).copied().take(self.takes).collect();
            self.poll_write(cx, &bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// The payloads of unmasked final text frames, as RFC 6455 section 5.2 writes them.
    fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let [TEXT, len, rest @ ..] = bytes {
            let (len, rest) = match len {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                127 => (u64::from_be_bytes(rest[..8].try_into().expect("8 bytes")) as usize, &rest[8..]),
                len => (usize::from(*len), rest),
            };
            found.push(rest[..len].to_vec());
            bytes = &rest[len..];
        }
        assert!(bytes.is_empty(), "{bytes:?}");
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn frames_leave_whole_and_in_order_however_the_socket_takes_them(
            lens in prop::collection::vec(prop_oneof![20 => 0..300usize, 1 => Just(65_535), 1 => Just(65_536)], 0..40),
            takes in prop_oneof![Just(7usize), 1_000..50_000usize],
            is_vectored: bool,
        ) {
            let texts: Vec<String> = lens.iter().enumerate().map(|(at, len)| "abcdefg"[at % 7..=at % 7].repeat(*len)).collect();
            let mut frames = Frames::default();
            for text in &texts {
                frames.text(text.clone());
            }
            let mut io = Narrow { taken: Vec::new(), takes, is_vectored, is_blocked: false };
            let mut cx = Context::from_waker(Waker::noop());
            while frames.poll_write(&mut io, &mut cx).map(|written| written.expect("written")).is_pending() {}
            prop_assert!(!frames.is_midway() && frames.bytes == 0 && frames.waiting.capacity() == 0);
            let wanted: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(payloads(&io.taken), wanted);
        }
    }

    #[test]
    fn it_is_full_by_number_and_by_size() {
        let mut many = Frames::default();
        (0..WAITING).for_each(|_| many.ping());
        assert!(many.is_full());
        let mut large = Frames::default();
        large.text("x".repeat(WAITING_BYTES - 20));
        assert!(!large.is_full());
        large.text("x".repeat(20));
        assert!(large.is_full());
    }
}
