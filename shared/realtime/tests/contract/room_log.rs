//! The room's log.

use bytes::Bytes;
use domain::Rev;
use protocol::Channel;
use realtime::{LogNumber, Since};
use rstest::rstest;

use super::world::{Kind, World, durable, passing, room, room_of};

/// What is answered for these rooms: the revs of each.
async fn logs(world: &World, asked: &[(Channel, i64, usize)], bytes: usize) -> Vec<Option<Vec<i64>>> {
    let ask = |(room, after, limit): &(Channel, i64, usize)| realtime::LogAsked {
        room: room_of(*room),
        after: Rev(*after),
        limit: *limit,
    };
    let asked: Vec<_> = asked.iter().map(ask).collect();
    let answers = world.realtime.room_logs(&asked, bytes).await.expect("an answer");
    let number = |payload: &Bytes| std::str::from_utf8(payload).ok()?.parse().ok();
    let revs = |payloads: Vec<Bytes>| payloads.iter().map(|payload| number(payload).expect("a number")).collect();
    answers.into_iter().map(|answer| answer.map(revs)).collect()
}

async fn log(world: &World, room: Channel, after: i64) -> Option<Vec<i64>> {
    log_of_at_most(world, room, after, 1000).await
}

async fn log_of_at_most(world: &World, room: Channel, after: i64, limit: usize) -> Option<Vec<i64>> {
    logs(world, &[(room, after, limit)], 1_000_000).await.remove(0)
}

#[rstest]
#[tokio::test]
async fn the_log_answers_what_came_after_a_rev_without_a_gap(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let room = room();
    world.publish(&[durable(room, 1), passing(room, "0"), durable(room, 2)]).await;
    world.publish(&[durable(room, 3)]).await;
    assert_eq!(log(&world, room, 0).await, Some(vec![1, 2, 3]));
    assert_eq!(log(&world, room, 1).await, Some(vec![2, 3]));
    assert_eq!(log(&world, room, 3).await, Some(vec![]));
    assert_eq!(log_of_at_most(&world, room, 0, 2).await, Some(vec![1, 2]));
    assert_eq!(log_of_at_most(&world, room, 1, 1).await, Some(vec![2]));
}

#[rstest]
#[tokio::test]
async fn a_log_that_cannot_be_appended_to_fails_the_publish(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    world.ask_all("ACL SETUSER default -xadd").await;
    assert!(world.realtime.publish(&[durable(room, 1)]).await.is_err());
    world.ask_all("ACL SETUSER default +xadd").await;
    world.publish(&[durable(room, 1)]).await;
    assert_eq!(log(&world, room, 0).await, Some(vec![1]));
}

#[rstest]
#[tokio::test]
async fn what_is_no_log_and_stands_where_a_log_should_holds_nothing_up(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (room, other) = (room(), room());
    world.publish(&[durable(room, 1), durable(other, 1)]).await;
    world.ask(&format!("SET {} x", world.log(room))).await;
    assert_eq!(logs(&world, &[(room, 0, 9), (other, 0, 9)], 1000).await, [None, Some(vec![1])]);
    let since = world.realtime.since(&[room_of(room)], LogNumber(1), 100).await.expect("an answer");
    assert!(matches!(since[..], [Since::Unknown]), "{since:?}");
    world.publish(&[durable(room, 2), durable(other, 2)]).await;
    assert_eq!(logs(&world, &[(room, 1, 9), (other, 0, 9)], 1000).await, [Some(vec![2]), Some(vec![1, 2])]);
    assert_eq!(log(&world, room, 0).await, None, "it begins anew");
}

#[rstest]
#[tokio::test]
async fn a_log_that_cannot_vouch_for_everything_is_no_answer(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let room = room();
    assert_eq!(log(&world, room, 0).await, None, "nothing was ever logged");
    world.publish(&[durable(room, 5), durable(room, 6), durable(room, 8)]).await;
    assert_eq!(log(&world, room, 3).await, None, "it begins later");
    assert_eq!(log(&world, room, 4).await, None, "7 is missing in between");
    assert_eq!(log(&world, room, 6).await, None, "7 is missing at the start");
    assert_eq!(log(&world, room, 7).await, Some(vec![8]));
    assert_eq!(log(&world, room, 9).await, None, "it ends earlier");
    world.publish(&[durable(room, 7)]).await;
    assert_eq!(log(&world, room, 6).await, None, "too late to be appended");
}

#[rstest]
#[tokio::test]
async fn a_repeated_rev_is_in_the_log_once(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    world.publish(&[durable(room, 1), durable(room, 1), durable(room, 2)]).await;
    world.publish(&[durable(room, 1), durable(room, 2), durable(room, 3)]).await;
    assert_eq!(log(&world, room, 0).await, Some(vec![1, 2, 3]));
}

#[rstest]
#[tokio::test]
async fn the_log_is_bounded_and_keeps_the_newest(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    let all: Vec<_> = (1..=1000).map(|rev| durable(room, rev)).collect();
    world.publish(&all).await;
    let kept = realtime::ROOM_LOG_ENTRIES as i64;
    assert_eq!(log(&world, room, 1000 - kept).await, Some((1001 - kept..=1000).collect()));
    assert_eq!(log(&world, room, 500).await, None);
}

#[rstest]
#[tokio::test]
async fn rooms_have_logs_of_their_own_and_users_have_none(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (one, other) = (room(), room());
    let same_id_user = Channel::User(domain::UserId(room_of(one).0));
    world.publish(&[durable(one, 1), durable(other, 1), durable(one, 2), durable(same_id_user, 3)]).await;
    assert_eq!(log(&world, one, 0).await, Some(vec![1, 2]));
    assert_eq!(log(&world, other, 0).await, Some(vec![1]));
}

#[rstest]
#[tokio::test]
async fn a_redis_log_lives_ten_minutes_after_the_last_append(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    world.publish(&[durable(room, 1)]).await;
    let left_ms = world.ask_number(&format!("PTTL {}", world.log(room))).await;
    assert!((590_000..=600_000).contains(&left_ms), "{left_ms}");
}

#[rstest]
#[tokio::test]
async fn many_logs_answer_in_one_round_what_each_would_answer(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (long, short, broken, none) = (room(), room(), room(), room());
    world.publish(&(1..=100).map(|rev| durable(long, rev)).collect::<Vec<_>>()).await;
    world.publish(&[durable(short, 7), durable(short, 8), durable(broken, 1), durable(broken, 3)]).await;
    assert_eq!(logs(&world, &[], 1000).await, Vec::<Option<Vec<i64>>>::new());
    let mut asked = Vec::new();
    for after in [0, 1, 15, 16, 17, 50, 99, 100, 101] {
        asked.extend([1, 15, 16, 17, 1000].map(|limit| (long, after, limit)));
    }
    for after in [0, 1, 5, 6, 7, 8, 9] {
        asked.extend([short, broken, none].map(|room| (room, after, 10)));
    }
    let answers = logs(&world, &asked, 1_000_000).await;
    for ((room, after, limit), answer) in asked.into_iter().zip(answers) {
        assert_eq!(answer, log_of_at_most(&world, room, after, limit).await, "{after} {limit}");
    }
}

#[rstest]
#[tokio::test]
async fn many_logs_answer_within_the_bytes_allowed(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let rooms = [room(), room(), room()];
    // Payloads of one byte each.
    for room in rooms {
        world.publish(&(1..=8).map(|rev| durable(room, rev)).collect::<Vec<_>>()).await;
    }
    let asked = rooms.map(|room| (room, 0, 100));
    let answered = async |bytes| logs(&world, &asked, bytes).await.iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(answered(24).await, [true, true, true]);
    assert_eq!(answered(23).await, [true, true, false]);
    assert_eq!(answered(8).await, [true, false, false]);
    assert_eq!(answered(7).await, [false, false, false]);
}
