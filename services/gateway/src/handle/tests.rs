//! Connections of tests, and what a handle promises.

use super::*;
use uuid::Uuid;

/// A connection of `user` that nobody reads from but the test.
pub(crate) fn handle(key: u64, user: u128) -> Arc<Handle> {
    handle_of(Dialect::Native, key, user)
}

pub(crate) fn handle_of(dialect: Dialect, key: u64, user: u128) -> Arc<Handle> {
    let handle = Handle::new(key, dialect, Deadlines::new(0, 5_000), Arc::default());
    handle.identify(Identity {
        user: UserId(Uuid::from_u128(user)),
        session: SessionId(Uuid::from_u128(u128::from(key))),
        device: DeviceId::parse("d").expect("well-formed"),
    });
    handle
}

/// Everything that waits for a connection, as JSON.
pub(crate) fn sent(handle: &Handle) -> Vec<serde_json::Value> {
    let texts = std::iter::from_fn(|| handle.pop());
    texts.map(|popped| serde_json::from_slice(&popped.bytes).expect("JSON")).collect()
}

#[test]
fn the_first_reason_to_close_counts_and_is_seen_once() {
    let handle = handle(1, 1);
    handle.close(CloseCode::Replaced);
    handle.close(CloseCode::Draining);
    assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Replaced)));
    assert_eq!(handle.take_signal(), None);
}

#[test]
fn who_loses_the_right_while_being_drained_gets_nothing_of_what_waits() {
    let handle = handle(1, 1);
    handle.close(CloseCode::Draining);
    assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Draining)));
    handle.push("waits".into(), Kind::Event);
    handle.close(CloseCode::Replaced);
    assert!(!handle.is_idle() && !handle.is_forbidden());
    handle.close(CloseCode::Forbidden);
    handle.push("late".into(), Kind::Event);
    assert!(handle.is_idle() && handle.is_forbidden());
    assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Forbidden)));
}

#[test]
fn nobody_waits_for_a_connection_that_has_ended_and_nothing_waits_for_it() {
    let meters: Arc<Meters> = Arc::default();
    let handle = Handle::new(1, Dialect::Native, Deadlines::new(0, 5_000), Arc::clone(&meters));
    while meters.pace.is_free() {
        handle.push("x".repeat(1000).into(), Kind::Event);
    }
    handle.close(CloseCode::Draining);
    assert!(!meters.pace.is_free(), "it still gets its answers");
    handle.end();
    assert!(meters.pace.is_free());
    handle.push("late".into(), Kind::Event);
    assert_eq!((handle.is_idle(), meters.outbox_bytes.load(Ordering::Relaxed)), (true, 0));
}

#[test]
fn who_reads_too_slowly_is_closed_as_such_and_its_queue_is_freed() {
    let handle = handle(1, 1);
    for _ in 0..5_000 {
        handle.push("x".repeat(1000).into(), Kind::Event);
    }
    assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::TooSlow)));
    assert!(handle.is_idle());
    assert_eq!(handle.meters.outbox_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn the_wheel_turns_deadlines_into_signals() {
    let handle = handle(1, 1);
    handle.authenticated(u64::MAX);
    assert_eq!(handle.plan_visit(|next_ms| next_ms), 25_000);
    assert!(!handle.visit(24_000, 24_000), "a stale entry");
    assert!(handle.visit(25_000, 25_000));
    assert_eq!(handle.take_signal(), Some(Signal::Ping));
    assert_eq!(handle.plan_visit(|next_ms| next_ms), 45_000);
    handle.visit(45_000, 45_000);
    assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::PongTimeout)));
}

#[test]
fn a_connection_that_has_left_takes_no_more_rooms() {
    let handle = handle(1, 1);
    let room = RoomId(Uuid::from_u128(9));
    assert!(handle.note_room(room));
    assert_eq!(handle.leave_all(), [room]);
    assert!(!handle.note_room(room));
}
