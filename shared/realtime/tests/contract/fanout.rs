//! Publishing and subscribing.

use std::collections::{HashMap, HashSet};

use domain::UserId;
use protocol::Channel;
use rstest::rstest;

use super::world::{Kind, World, durable, next_text, nothing, passing, room};

#[rstest]
#[tokio::test]
async fn an_inbox_gets_what_is_published_on_its_channels_and_nothing_else(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (mine, other, me) = (room(), room(), Channel::User(UserId::generate()));
    world.publish(&[passing(mine, "too early")]).await;
    let mut inbox = world.inbox(&[mine, me]).await;
    world.publish(&[passing(other, "not mine"), passing(mine, "to the room"), passing(me, "to me")]).await;
    let mut expected = HashMap::from([(mine, "to the room".to_owned()), (me, "to me".to_owned())]);
    for _ in 0..2 {
        let (channel, text) = next_text(&mut inbox).await;
        assert_eq!(expected.remove(&channel), Some(text));
    }
    nothing(&mut inbox).await;
}

#[rstest]
#[tokio::test]
async fn payloads_arrive_byte_for_byte(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    let payload: Vec<u8> = (0..200_000_u32).map(|number| (number % 256) as u8).collect();
    let outbound = realtime::Outbound { channel: room, rev: Some(domain::Rev(1)), payload: payload.clone().into() };
    world.publish(&[outbound]).await;
    let arrival = super::world::next(&mut inbox).await;
    assert!(matches!(arrival, realtime::Arrival::Delivery { payload: got, .. } if got == payload));
}

#[rstest]
#[tokio::test]
async fn deliveries_of_a_room_arrive_in_the_order_of_publishing(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let rooms = [room(), room(), room()];
    let mut inbox = world.inbox(&rooms).await;
    for first in (1..=900).step_by(150) {
        let slice: Vec<_> = (first..first + 150)
            .flat_map(|rev| rooms.map(|room| [durable(room, rev), passing(room, &format!("~{rev}"))]).concat())
            .collect();
        world.publish(&slice).await;
    }
    let mut expected = [(1, true); 3];
    for _ in 0..3 * 2 * 900 {
        let (channel, text) = next_text(&mut inbox).await;
        let (rev, is_durable) = &mut expected[rooms.iter().position(|room| *room == channel).expect("a room of ours")];
        assert_eq!(text, if *is_durable { rev.to_string() } else { format!("~{rev}") });
        *rev += i32::from(!*is_durable);
        *is_durable = !*is_durable;
    }
}

#[rstest]
#[tokio::test]
async fn two_inboxes_both_get_it(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    let (mut one, mut other) = (world.inbox(&[room]).await, world.inbox(&[room]).await);
    world.publish(&[durable(room, 1)]).await;
    assert_eq!(next_text(&mut one).await.1, "1");
    assert_eq!(next_text(&mut other).await.1, "1");
    drop(other);
    world.publish(&[durable(room, 2)]).await;
    assert_eq!(next_text(&mut one).await.1, "2");
}

#[rstest]
#[tokio::test]
async fn nothing_published_after_subscribing_is_missed_while_others_subscribe_and_publish(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (inbox, busy) = (world.realtime.inbox(), room());
    world.realtime.subscribe(&inbox.id(), &[busy]).await.expect("subscribed");
    let (id, realtime) = (inbox.id(), world.realtime.clone());
    let mut inbox = inbox;
    let publishing = async {
        for rev in 1..=200 {
            world.publish(&[durable(busy, rev)]).await;
        }
    };
    let subscribing = async {
        for number in 0..100 {
            let new = room();
            realtime.subscribe(&id, &[new]).await.expect("subscribed");
            world.publish(&[passing(new, &number.to_string())]).await;
        }
    };
    let reading = async {
        let (mut of_busy, mut of_new) = (0, 0);
        while of_busy + of_new < 300 {
            let (channel, text) = next_text(&mut inbox).await;
            if channel == busy {
                of_busy += 1;
                assert_eq!(text, of_busy.to_string());
            } else {
                assert_eq!(text, of_new.to_string());
                of_new += 1;
            }
        }
    };
    tokio::join!(publishing, subscribing, reading);
}

#[rstest]
#[tokio::test]
async fn thousands_of_channels_are_subscribed_at_once(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let rooms: Vec<Channel> = (0..20_000).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    let last: Vec<_> = rooms.iter().step_by(1000).map(|room| passing(*room, "here")).collect();
    world.publish(&last).await;
    let mut expected: HashSet<Channel> = last.iter().map(|outbound| outbound.channel).collect();
    while !expected.is_empty() {
        assert!(expected.remove(&next_text(&mut inbox).await.0));
    }
}

#[rstest]
#[tokio::test]
async fn unsubscribing_ends_it_and_subscribing_again_begins_it_anew(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (left, kept) = (room(), room());
    let mut inbox = world.inbox(&[left, kept]).await;
    world.realtime.unsubscribe(&inbox.id(), &[left, room()]);
    // Subscribing to something else waits for its turn after the unsubscribing.
    world.realtime.subscribe(&inbox.id(), &[room()]).await.expect("subscribed");
    world.publish(&[passing(left, "gone"), passing(kept, "still here")]).await;
    assert_eq!(next_text(&mut inbox).await, (kept, "still here".into()));
    world.realtime.unsubscribe(&inbox.id(), &[left]);
    world.realtime.subscribe(&inbox.id(), &[left]).await.expect("subscribed");
    world.publish(&[passing(left, "back")]).await;
    assert_eq!(next_text(&mut inbox).await, (left, "back".into()));
}

#[rstest]
#[tokio::test]
async fn a_repeated_publish_arrives_again(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    world.publish(&[durable(room, 1), durable(room, 2), durable(room, 1)]).await;
    for expected in ["1", "2", "1"] {
        assert_eq!(next_text(&mut inbox).await.1, expected);
    }
}

#[rstest]
#[tokio::test]
async fn a_stop_ends_the_inbox_and_its_task(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let mut inbox = world.inbox(&[room()]).await;
    let dropped = world.inbox(&[room()]).await;
    drop(dropped);
    assert!(!world.tasks.failed() && !world.tasks.shutdown().is_requested());
    world.tasks.shutdown().request();
    assert_eq!(inbox.recv().await, None);
    assert!(world.tasks.drained(testkit::PATIENCE).await);
    assert!(!world.tasks.failed());
}
