//! The loop over a link made of memory. Whole sessions are shown in the crate's tests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use protocol::CloseCode;
use transport::{Frame, Gone, Link, Received};

use super::connection::{Connection, Step};
use crate::handle::Signal;
use crate::handle::outbox::Kind;
use crate::handle::tests::handle;

/// What a link of memory did.
#[derive(Debug, Default)]
struct Wire {
    incoming: VecDeque<Received>,
    sent: Vec<Frame>,
    flushes: usize,
    /// Frames it takes before it blocks.
    takes: usize,
}

#[derive(Clone)]
struct Memory(Arc<Mutex<Wire>>);

impl Link for Memory {
    fn poll_receive(&mut self, _cx: &mut Context<'_>) -> Poll<Received> {
        self.0.lock().incoming.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.0.lock().takes > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn send(&mut self, frame: Frame) {
        let mut wire = self.0.lock();
        wire.takes -= 1;
        wire.sent.push(frame);
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.lock().flushes += 1;
        Poll::Ready(Ok(()))
    }

    async fn close(self, _code: CloseCode) {}
}

fn connection() -> (Connection<Memory>, Arc<Mutex<Wire>>) {
    let wire = Arc::new(Mutex::new(Wire { takes: 100, ..Wire::default() }));
    (Connection::new(Memory(Arc::clone(&wire)), handle(1, 1)), wire)
}

fn step(connection: &mut Connection<Memory>, may_read: bool) -> Poll<Step> {
    connection.poll_step(&mut Context::from_waker(Waker::noop()), may_read)
}

fn texts(wire: &Mutex<Wire>) -> Vec<String> {
    let text = |frame: &Frame| match frame {
        Frame::Text(bytes) | Frame::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Frame::Ping => "ping".to_owned(),
    };
    wire.lock().sent.iter().map(text).collect()
}

#[test]
fn all_that_waits_is_sent_with_one_flush() {
    let (mut connection, wire) = connection();
    for text in ["a", "b", "c"] {
        connection.handle.push(text.into(), Kind::Event);
    }
    assert!(step(&mut connection, true).is_pending());
    assert_eq!((texts(&wire), wire.lock().flushes), (vec!["a".into(), "b".into(), "c".into()], 1));
    assert!(step(&mut connection, true).is_pending());
    assert_eq!(wire.lock().flushes, 1, "nothing new, nothing to flush");
}

#[test]
fn a_client_that_does_not_read_is_read_from_nevertheless() {
    let (mut connection, wire) = connection();
    wire.lock().takes = 1;
    connection.handle.push("a".into(), Kind::Event);
    connection.handle.push("b".into(), Kind::Event);
    assert!(step(&mut connection, true).is_pending());
    assert_eq!(texts(&wire), ["a"]);
    wire.lock().incoming.push_back(Received::Text("x".into()));
    assert_eq!(step(&mut connection, true), Poll::Ready(Step::Received(Received::Text("x".into()))));
    wire.lock().takes = 1;
    assert!(step(&mut connection, true).is_pending());
    assert_eq!(texts(&wire), ["a", "b"]);
}

#[test]
fn a_client_that_never_stops_talking_is_answered_nevertheless() {
    let (mut connection, wire) = connection();
    wire.lock().incoming.extend(vec![Received::Alive; 10]);
    connection.handle.push("a".into(), Kind::Event);
    assert_eq!(step(&mut connection, true), Poll::Ready(Step::Received(Received::Alive)));
    assert_eq!((texts(&wire), wire.lock().flushes), (vec!["a".into()], 1));
}

#[test]
fn nothing_is_read_while_there_is_no_room_for_what_it_may_ask() {
    let (mut connection, wire) = connection();
    wire.lock().incoming.push_back(Received::Text("x".into()));
    assert!(step(&mut connection, false).is_pending());
    assert_eq!(wire.lock().incoming.len(), 1);
}

#[test]
fn a_request_to_close_comes_before_what_the_client_still_says() {
    let (mut connection, wire) = connection();
    wire.lock().incoming.push_back(Received::Text("x".into()));
    connection.handle.close(CloseCode::Replaced);
    assert_eq!(step(&mut connection, true), Poll::Ready(Step::Signal(Signal::Close(CloseCode::Replaced))));
}

#[test]
fn a_ping_is_answered_by_any_sign_of_life() {
    let (mut connection, wire) = connection();
    let handle = Arc::clone(&connection.handle);
    handle.authenticated(u64::MAX);
    assert_eq!(handle.plan_visit(|next_ms| next_ms), 25_000);
    assert!(handle.visit(25_000, 25_000));
    handle.push("a".into(), Kind::Event);
    wire.lock().incoming.push_back(Received::Alive);
    assert_eq!(step(&mut connection, true), Poll::Ready(Step::Received(Received::Alive)));
    assert!(step(&mut connection, true).is_pending());
    assert_eq!(texts(&wire), ["a", "ping"]);
    assert_eq!(handle.plan_visit(|next_ms| next_ms), 50_000, "no pong is waited for any more");
}
