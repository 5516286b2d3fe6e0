//! Numbers of deliveries, what came after one, and what connections are recognised by.

use domain::{DeviceId, Membership, Rev, UserId};
use protocol::Channel;
use realtime::{Arrival, Inbox, LogNumber, Outbound, Remembered, Since};
use rstest::rstest;
use uuid::Uuid;

use super::world::{Kind, World, durable, next, passing, room, room_of, until_reconnected};

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

const MOST: usize = 100;

/// The newest rev in each log and the revs that came after a number; `None`: not known.
async fn since_of(world: &World, rooms: &[Channel], after: LogNumber, most: usize) -> Vec<Option<(i64, Vec<i64>)>> {
    let rooms: Vec<_> = rooms.iter().map(|room| room_of(*room)).collect();
    let found = world.realtime.since(&rooms, after, most).await.expect("an answer");
    let read = |since| match since {
        Since::Logged { newest, deliveries, .. } => Some((newest.0, deliveries.iter().map(|(rev, _)| rev.0).collect())),
        Since::NoLog => Some((0, vec![])),
        Since::Unknown => None,
    };
    found.into_iter().map(read).collect()
}

/// The same of one log.
async fn since(world: &World, room: Channel, after: LogNumber) -> Option<(i64, Vec<i64>)> {
    since_of(world, &[room], after, MOST).await.remove(0)
}

/// After which rev the log begins, if that is all it knows of what was before.
async fn begins_after(world: &World, room: Channel, after: LogNumber) -> Option<i64> {
    match world.realtime.since(&[room_of(room)], after, MOST).await.expect("an answer").remove(0) {
        Since::Logged { begins_after, .. } => begins_after.map(|rev| rev.0),
        other => panic!("{other:?}"),
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
    let logged = world.realtime.since(&[room_of(one)], LogNumber::NONE, MOST).await.expect("an answer");
    let deliveries = vec![(Rev(1), got[0]), (Rev(2), got[3])];
    assert_eq!(logged, [Since::Logged { newest: Rev(2), deliveries, begins_after: None }]);
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

#[rstest]
#[tokio::test]
async fn of_many_logs_no_more_is_told_together_than_was_asked_for(#[values(Kind::Redis, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let rooms = [room(), room(), room(), room()];
    let mut inbox = world.inbox(&rooms[3..]).await;
    world.publish(&[durable(rooms[3], 1)]).await;
    let after = numbers(&mut inbox, 1).await[0];
    for room in &rooms[..3] {
        world.publish(&(1..=8).map(|rev| durable(*room, rev)).collect::<Vec<_>>()).await;
    }
    let eight = Some((8, (1..=8).collect::<Vec<_>>()));
    let quiet = Some((1, vec![]));
    let told = async |most| since_of(&world, &rooms, after, most).await;
    assert_eq!(told(24).await, [eight.clone(), eight.clone(), eight.clone(), quiet.clone()]);
    assert_eq!(told(23).await, [eight.clone(), eight.clone(), None, quiet.clone()]);
    assert_eq!(told(8).await, [eight, None, None, quiet.clone()]);
    assert_eq!(told(7).await, [None, None, None, quiet]);
}

#[tokio::test]
async fn on_a_cluster_nothing_has_a_number_and_logs_do_not_know_what_came() {
    let world = World::new(Kind::Cluster).await;
    let (one, other) = (room(), room());
    let mut inbox = world.inbox(&[one, other]).await;
    world.publish(&[durable(one, 1), durable(other, 1), durable(one, 2), durable(one, 1)]).await;
    assert!(!world.realtime.is_ordered());
    assert_eq!(numbers(&mut inbox, 4).await, [LogNumber::NONE; 4]);
    assert_eq!(since_of(&world, &[one, other, room()], LogNumber(1), MOST).await, [None, None, None]);
}

#[rstest]
#[tokio::test]
async fn where_there_is_one_place_for_all_logs_everything_has_a_number(
    #[values(Kind::Redis, Kind::Embedded)] kind: Kind,
) {
    assert!(World::new(kind).await.realtime.is_ordered());
}

#[tokio::test]
async fn redis_answers_what_came_without_payloads_and_no_more_than_was_asked_for() {
    let world = World::new(Kind::Redis).await;
    let rooms: Vec<Channel> = (0..10).map(|_| room()).collect();
    for room in &rooms {
        let heavy = |rev| Outbound { payload: vec![b'x'; 500].into(), ..durable(*room, rev) };
        world.publish(&(1..=250).map(heavy).collect::<Vec<_>>()).await;
    }
    let sent = async || {
        let stats = world.ask("INFO stats").await;
        let sent = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")?.trim().parse().ok());
        sent.expect("a number")
    };
    let before: u64 = sent().await;
    assert_eq!(since_of(&world, &rooms, LogNumber::NONE, 249).await, vec![None; 10]);
    assert_eq!(since_of(&world, &rooms[..1], LogNumber::NONE, 250).await, [Some((250, (1..=250).collect()))]);
    let bytes = sent().await - before;
    assert!(bytes < 40_000, "{bytes}");
}

#[rstest]
#[tokio::test]
async fn where_only_its_beginning_speaks_for_a_log_it_says_after_which_rev_it_begins(
    #[values(Kind::Redis, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (other, one) = (room(), room());
    let mut inbox = world.inbox(&[other, one]).await;
    // Not at once: the number before that of 7 is one of 7's own then, and not the other's.
    world.publish(&[durable(other, 1)]).await;
    world.publish(&[durable(one, 7), durable(one, 8)]).await;
    let got = numbers(&mut inbox, 3).await;
    // What one process keeps it loses only with the numbers that it gave.
    let expected = if matches!(kind, Kind::Redis) { Some(6) } else { None };
    assert_eq!(begins_after(&world, one, got[0]).await, expected);
    assert_eq!(begins_after(&world, one, got[1]).await, None, "7 is known to be");
    assert_eq!(begins_after(&world, other, LogNumber::NONE).await, None, "before 1 was nothing");
}

#[tokio::test]
async fn a_log_that_was_lost_in_between_does_not_speak_for_what_it_had() {
    let world = World::new(Kind::Redis).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    world.publish(&[durable(room, 1), durable(room, 2)]).await;
    let got = numbers(&mut inbox, 2).await;
    world.ask(&format!("DEL chat:log:{}", room_of(room))).await;
    world.publish(&[durable(room, 3)]).await;
    assert_eq!(begins_after(&world, room, got[0]).await, Some(2), "2 came after that");
}

#[tokio::test]
async fn numbers_go_on_growing_when_redis_is_wiped() {
    let world = World::new(Kind::Redis).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    world.publish(&[durable(room, 1)]).await;
    let before = numbers(&mut inbox, 1).await;
    world.ask("FLUSHALL").await;
    until_reconnected(&mut inbox).await;
    world.publish(&[durable(room, 2)]).await;
    let after = numbers(&mut inbox, 1).await;
    assert!(before < after, "{before:?} {after:?}");
}

#[rstest]
#[tokio::test]
async fn connections_are_recognised_by_their_secret(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
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
