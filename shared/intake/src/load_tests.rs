//! A load that is told what is seen, and one that looks at real ports.

use broker::BrokerSettings;
use domain::{JobId, RoomId, Timestamp, UserId};
use futures_util::future::join_all;
use protocol::envelope::NewEvent;
use protocol::{Change, Code, Keyring, SignedEnvelope, wire};
use realtime::RealtimeSettings;
use runtime::Shutdown;
use testkit::until;
use uuid::Uuid;

use super::*;

const KEY: Uuid = Uuid::from_u128(1);

/// So many are ready in the queues of a single shard, by class.
fn load(limit: u32, ready: [u64; 3]) -> Arc<Load> {
    let load = Arc::new(Load::new(1, limit, Clock::system()));
    let at_us = load.clock.monotonic_us().max(1);
    load.note(&sampled(&Depths::ready(vec![ready]), &Default::default(), None, at_us), at_us);
    load
}

#[test]
fn each_class_is_refused_for_its_own_length() {
    let load = load(100, [200, 50, 0]);
    let refusal = load.enter(EventKind::MessageSend, KEY).err().expect("refused");
    assert_eq!(refusal.code, Code::Overloaded);
    assert!(load.enter(EventKind::MessageEdit, KEY).is_ok());
}

#[test]
fn what_is_most_urgent_is_never_refused_for_the_length() {
    let load = load(100, [1_000_000, 0, 0]);
    assert!(load.enter_as(Class::High, 9, 0).is_err());
    assert!(load.enter_as(Class::High, 10, 0).is_ok());
}

#[test]
fn hints_are_spread_within_their_bounds() {
    let load = load(100, [1_000, 0, 0]);
    let hint = || load.enter(EventKind::MessageSend, KEY).err().and_then(|it| it.retry_after_ms).expect("a hint");
    let hints: std::collections::BTreeSet<u64> = (0..200).map(|_| hint()).collect();
    assert!(hints.len() > 100, "{hints:?}");
    assert!(hints.iter().all(|hint| (500..=30_000).contains(hint)), "{hints:?}");
}

#[test]
fn the_last_judgement_stands_for_a_while_when_the_depth_is_not_known() {
    let load = load(100, [20_000, 0, 0]);
    let seen_us = load.seen_us.load(Ordering::Relaxed);
    load.miss(seen_us + JUDGEMENT_FOR_US);
    assert!(load.enter(EventKind::MessageSend, KEY).is_err() && load.sheds());
    load.miss(seen_us + JUDGEMENT_FOR_US + 1);
    assert!(load.enter(EventKind::MessageSend, KEY).is_ok() && !load.sheds());
}

#[test]
fn too_much_typing_sheds_typing() {
    let load = load(100, [0, 0, 101]);
    assert!(load.sheds() && load.enter(EventKind::MessageSend, KEY).is_ok());
}

#[test]
fn typing_is_shed_from_the_first_refused_message_on() {
    let load = load(100, [100, 0, 0]);
    assert!(!load.sheds());
    let _entered = load.enter(EventKind::MessageSend, KEY).expect("one more shows that the limit is reached");
    assert!(load.enter(EventKind::MessageSend, KEY).is_err() && load.sheds());
}

#[test]
fn what_was_confirmed_or_given_up_is_on_its_way_no_longer() {
    let load = load(100, [0; 3]);
    drop(load.enter(EventKind::MessageSend, KEY).expect("enters"));
    let held = load.enter(EventKind::MessageSend, KEY).expect("enters");
    assert_eq!(load.of(Class::High).lock().settled(), [1]);
    drop(held);
    assert_eq!(load.of(Class::High).lock().settled(), [2]);
}

#[test]
fn each_class_of_each_shard_is_seen_by_itself() {
    let depths = Depths::ready(vec![[1, 2, 3], [10, 20, 30]]);
    let settled = [vec![4, 40], vec![5, 50], vec![6, 60]];
    let seen = |drained: Option<&[[u64; 3]]>| {
        let seen = sampled(&depths, &settled, drained, 10);
        seen.map(|of| of.into_iter().map(|it| (it.depth, it.settled, it.drained, it.at_us)).collect::<Vec<_>>())
    };
    let first = [(1, 4, Some(7), 10), (2, 5, Some(8), 10), (3, 6, Some(9), 10)];
    let second = [(10, 40, Some(70), 10), (20, 50, Some(80), 10), (30, 60, Some(90), 10)];
    let expected = [0, 1, 2].map(|class| vec![first[class], second[class]]);
    assert_eq!(seen(Some(&[[7, 8, 9], [70, 80, 90]])), expected);
    assert!(seen(None).iter().flatten().all(|(_, _, drained, _)| drained.is_none()));
}

#[test]
fn what_is_too_long_in_one_shard_is_nothing_to_the_rooms_of_the_others() {
    let load = Arc::new(Load::new(4, 1_000, Clock::system()));
    let at_us = load.clock.monotonic_us().max(1);
    let [here, there] = [1, 5].map(Uuid::from_u128);
    assert_eq!([here, there].map(|key| shard_of(key, 4)), [0, 1]);
    let depths = Depths::ready(vec![[1_001, 0, 0], [0, 900, 0], [0; 3], [0; 3]]);
    load.note(&sampled(&depths, &Default::default(), None, at_us), at_us);
    assert!(load.enter(EventKind::MessageSend, here).is_err());
    assert!(load.enter(EventKind::MessageSend, there).is_err(), "all together are more than the operator allows");
    assert!(load.enter(EventKind::MessageEdit, here).is_ok() && load.enter(EventKind::MessageEdit, there).is_ok());
}

fn message(keys: &Keyring) -> SignedEnvelope {
    let event = NewEvent {
        job_id: JobId::generate(),
        room_id: RoomId(Uuid::from_u128(1)),
        actor: UserId::generate(),
        device_id: String::new(),
        accepted_at: Timestamp(0),
        correlation_id: None,
        traceparent: None,
        change: Change::MessageSend(wire::MessageSend::default()),
    };
    SignedEnvelope::seal(event, keys)
}

#[tokio::test]
async fn what_processors_say_that_they_drain_becomes_the_limit_and_what_they_said_long_ago_does_not() {
    let (tasks, folder) = (Tasks::new(Shutdown::new()), tempfile::tempdir().expect("a folder"));
    let broker = BrokerSettings::Embedded { path: folder.path().join("broker.db"), sync_full: false };
    let broker = Broker::open(broker, &tasks).await.expect("opens");
    let realtime = Realtime::open(RealtimeSettings::Embedded, &tasks).await.expect("opens");
    let keys = Keyring::parse(&format!("k1:{}", "QUJD".repeat(11))).expect("keys");
    let clock = Clock::system();
    let load = Load::watch(broker.clone(), realtime.clone(), 50_000, clock.clone(), &tasks);
    join_all((0..600).map(|_| broker.publish(message(&keys)))).await;
    let (limit, started_us) = (|| load.of(Class::High).lock().limit(0), clock.monotonic_us());
    let drained = AtomicU64::new(0);
    until(testkit::PATIENCE, || async {
        // A thousand a second, as far as it is known.
        let due = (clock.monotonic_us() - started_us) / 1_000;
        let more = due - drained.swap(due, Ordering::Relaxed);
        realtime.count_drained(&[(0, [more, 0, 0])]).await.expect("counted");
        limit() < 50_000
    })
    .await;
    assert!((3_000..=12_000).contains(&limit()), "six seconds of it: {}", limit());
    assert_eq!(load.of(Class::Medium).lock().limit(0), 50_000, "of another class nothing is known");
    until(testkit::PATIENCE, || async { limit() == 50_000 }).await;
}
