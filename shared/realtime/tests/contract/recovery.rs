//! Numbers of deliveries, what came after one, and what connections are recognised by.

use domain::{DeviceId, Membership, Rev, UserId};
use realtime::{Arrival, Inbox, LogNumber, Remembered, Since};
use rstest::rstest;
use uuid::Uuid;

use super::world::{Kind, World, durable, next, passing, room, room_of};

async fn numbers(inbox: &mut Inbox, count: usize) -> Vec<LogNumber> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        match next(inbox).await {
            Arrival::Delivery { number, .. } => numbers.push(number),
            Arrival::Reconnected => panic!("nothing was lost"),
        }
    }
    numbers
}

/// The newest rev in the log and the revs that came after a number; `None`: not known.
async fn since(world: &World, room: protocol::Channel, after: LogNumber) -> Option<(i64, Vec<i64>)> {
    let found = world.realtime.since(&[room_of(room)], after).await.expect("an answer");
    match &found[..] {
        [Since::Logged { newest, deliveries }] => Some((newest.0, deliveries.iter().map(|one| one.rev.0).collect())),
        [Since::NoLog] => Some((0, vec![])),
        _ => None,
    }
}

#[rstest]
#[tokio::test]
async fn numbers_grow_over_all_rooms_and_are_those_of_the_log(#[values(Kind::Redis, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let (one, other) = (room(), room());
    let mut inbox = world.inbox(&[one, other]).await;
    world.publish(&[durable(one, 1), durable(other, 1), passing(one, "x"), durable(one, 2), durable(one, 1)]).await;
    let got = numbers(&mut inbox, 5).await;
    assert!(got[0] < got[1] && got[1] < got[3], "{got:?}");
    assert!(!got[2].is_some(), "what enters no log has none");
    assert_eq!(got[4], got[0], "a repeated one has the one it has in the log");
    let logged = world.realtime.room_log(room_of(one), Rev(0), 10).await.expect("an answer").expect("whole");
    assert_eq!(logged.iter().map(|one| one.number).collect::<Vec<_>>(), [got[0], got[3]]);
}

#[rstest]
#[tokio::test]
async fn what_came_after_a_number_is_told_if_that_is_all(#[values(Kind::Redis, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let (busy, late, quiet) = (room(), room(), room());
    let mut inbox = world.inbox(&[busy]).await;
    let ten: Vec<_> = (1..=10).map(|rev| durable(busy, rev)).collect();
    world.publish(&ten).await;
    let got = numbers(&mut inbox, 10).await;
    world.publish(&[durable(late, 7), durable(late, 8)]).await;
    assert_eq!(since(&world, busy, got[6]).await, Some((10, vec![8, 9, 10])));
    assert_eq!(since(&world, busy, got[0]).await, Some((10, (2..=10).collect())));
    assert_eq!(since(&world, busy, got[9]).await, Some((10, vec![])));
    assert_eq!(since(&world, late, got[9]).await, Some((8, vec![7, 8])), "what was before is older than the log");
    assert_eq!(since(&world, quiet, got[9]).await, Some((0, vec![])));
    world.publish(&[durable(late, 10)]).await;
    assert_eq!(since(&world, late, got[9]).await, None, "9 is missing");
}

#[rstest]
#[tokio::test]
async fn what_the_log_has_lost_is_not_known(#[values(Kind::Redis, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    let all: Vec<_> = (1..=1000).map(|rev| durable(room, rev)).collect();
    world.publish(&all).await;
    let got = numbers(&mut inbox, 1000).await;
    assert_eq!(since(&world, room, got[100]).await, None);
    assert_eq!(since(&world, room, got[950]).await, Some((1000, (952..=1000).collect())));
}

#[tokio::test]
async fn numbers_go_on_growing_when_redis_is_wiped() {
    let world = World::new(Kind::Redis).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    world.publish(&[durable(room, 1)]).await;
    let before = numbers(&mut inbox, 1).await;
    world.ask("FLUSHALL").await;
    world.publish(&[durable(room, 2)]).await;
    let after = numbers(&mut inbox, 1).await;
    assert!(before < after, "{before:?} {after:?}");
}

#[rstest]
#[tokio::test]
async fn connections_are_recognised_by_their_secret(#[values(Kind::Redis, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let pid = Uuid::new_v4();
    let remembered = Remembered {
        user: UserId::generate(),
        device: DeviceId::parse("a-phone").expect("well-formed"),
        socket_id: "the id".into(),
        membership: Membership(7),
        since: LogNumber(9),
    };
    assert_eq!(world.realtime.recall(pid).await, Ok(None));
    world.realtime.remember(pid, &remembered).await.expect("remembered");
    assert_eq!(world.realtime.recall(pid).await, Ok(Some(remembered.clone())));
    assert_eq!(world.realtime.recall(Uuid::new_v4()).await, Ok(None));
    world.realtime.forget_connection(pid).await.expect("forgotten");
    assert_eq!(world.realtime.recall(pid).await, Ok(None));
}
