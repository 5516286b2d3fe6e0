//! What only a Redis cluster goes through.

use std::time::Instant;

use domain::{Rev, UserId};
use protocol::Channel;
use realtime::{Arrival, Inbox, LogAsked, Realtime, RealtimeError, RealtimeSettings};
use testkit::services::{BUSY, RedisCluster, RedisServer};
use testkit::{PATIENCE, until};
use uuid::Uuid;

use super::world::{
    Kind, World, at, device, durable, next, next_text, next_text_after_loss, passing, room, room_of, until_reconnected,
};

impl World {
    /// A room and the master that has it, and another master.
    async fn placed(&self, room: Channel) -> (u16, usize, usize) {
        let (slot, owner) =
            (self.cluster().slot_of(&self.log(room)).await, self.cluster().owner_of(&self.log(room)).await);
        (slot, owner, (owner + 1) % 3)
    }

    async fn log_after(&self, room: Channel, after: i64) -> Option<Vec<String>> {
        let asked = [LogAsked { room: room_of(room), after: Rev(after), limit: 100 }];
        let found = self.realtime.room_logs(&asked, 10_000).await.expect("an answer").remove(0)?;
        Some(found.iter().map(|payload| String::from_utf8_lossy(payload).into_owned()).collect())
    }
}

/// Everything from `from` to `to` arrives, in order, or the word that something may be missing does; at least
/// the last arrives in any case, published again if it must.
async fn arrive_or_are_announced(world: &World, inbox: &mut Inbox, room: Channel, from: i64, to: i64) {
    let mut expected = from;
    while expected <= to {
        match tokio::time::timeout(PATIENCE, inbox.recv()).await.expect("something arrives") {
            Some(Arrival::Delivery { payload, .. }) => {
                let rev: i64 = std::str::from_utf8(&payload).expect("text").parse().expect("a rev");
                assert!(rev <= expected, "{expected} is missing before {rev}, and nobody was told");
                expected = expected.max(rev + 1);
            }
            // As a gateway does, which reads what it misses from the log.
            Some(Arrival::Reconnected) => {
                if world.log_after(room, expected - 1).await.is_some_and(|missed| !missed.is_empty()) {
                    let missed = world.log_after(room, expected - 1).await.expect("just seen");
                    expected += missed.len() as i64;
                }
            }
            None => panic!("nobody asked to stop"),
        }
    }
}

#[tokio::test]
async fn what_is_published_while_a_slot_moves_arrives_or_is_announced_as_missing() {
    let world = World::new(Kind::Cluster).await;
    let rooms: Vec<Channel> = (0..50).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    let (slot, from, to) = world.placed(rooms[0]).await;
    world.cluster().begin_move(slot, from, to).await;
    // The new node writes the log, the old one has the subscribers.
    world.publish(&[durable(rooms[0], 1), durable(rooms[0], 2)]).await;
    assert_eq!(next_text(&mut inbox).await, (rooms[0], "1".into()));
    assert_eq!(next_text(&mut inbox).await, (rooms[0], "2".into()));
    assert_eq!(world.log_after(rooms[0], 0).await, Some(vec!["1".into(), "2".into()]));
    world.cluster().end_move(slot, from, to).await;
    let publishing = async {
        for rev in 3..=200 {
            world.publish(&[durable(rooms[0], rev)]).await;
        }
    };
    tokio::join!(publishing, arrive_or_are_announced(&world, &mut inbox, rooms[0], 3, 200));
    assert_eq!(world.cluster().owner_of(&world.log(rooms[0])).await, to);
    assert!(!world.tasks.failed());
}

#[tokio::test]
async fn after_a_slot_moved_the_inbox_is_told_and_everything_arrives_from_its_new_node() {
    let world = World::new(Kind::Cluster).await;
    let (moving, staying) = (room(), room());
    let mut inbox = world.inbox(&[moving, staying]).await;
    for _ in 0..2 {
        let (slot, from, to) = world.placed(moving).await;
        world.cluster().move_slot(slot, from, to).await;
        until_reconnected(&mut inbox).await;
        world.until_whole(&mut inbox, &[moving, staying]).await;
        world.publish(&[passing(moving, "here")]).await;
        assert_eq!(next_text_after_loss(&world, &mut inbox).await, (moving, "here".into()));
    }
    // Who left a room has left it also where the room is by now.
    world.realtime.unsubscribe(&inbox.id(), &[moving]);
    world.realtime.subscribe(&inbox.id(), &[room()]).await.expect("subscribed");
    let channel = world.log(moving).replace("log", "room");
    until(PATIENCE, || async {
        let node = world.node_of(moving).await;
        node.command(&format!("PUBSUB SHARDNUMSUB {channel}")).await.is_ok_and(|counted| counted.contains(":0"))
    })
    .await;
    world.publish(&[passing(moving, "gone"), passing(staying, "there")]).await;
    assert_eq!(next_text_after_loss(&world, &mut inbox).await, (staying, "there".into()));
}

#[tokio::test]
async fn what_a_new_node_published_before_it_confirmed_is_announced_as_missing() {
    let world = World::new(Kind::Cluster).await;
    let moving = room();
    let mut inbox = world.inbox(&[moving]).await;
    let (slot, from, to) = world.placed(moving).await;
    world.cluster().begin_move(slot, from, to).await;
    let publish = format!("SPUBLISH {} lost", world.log(moving).replace("log", "room"));
    let published_after = Instant::now() + BUSY;
    let moved = world.cluster().end_move_busy(slot, from, to, &publish);
    let mut moved = std::pin::pin!(moved);
    let mut told = false;
    loop {
        tokio::select! {
            () = &mut moved => break,
            arrival = next(&mut inbox) => assert_eq!(arrival, Arrival::Reconnected),
        }
        // The node answers everybody at once: this word may be here before its own answer is.
        told = Instant::now() > published_after;
    }
    if !told {
        assert_eq!(until_reconnected(&mut inbox).await, 0);
    }
    world.until_whole(&mut inbox, &[moving]).await;
    world.publish(&[passing(moving, "here")]).await;
    assert_eq!(next_text_after_loss(&world, &mut inbox).await, (moving, "here".into()));
}

#[tokio::test]
async fn while_one_node_is_away_the_rooms_of_the_others_go_on() {
    let world = World::new(Kind::Cluster).await;
    let rooms: Vec<Channel> = (0..60).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    let (_, lost, other) = world.placed(rooms[0]).await;
    let mut there = Vec::new();
    for room in &rooms {
        if world.placed(*room).await.1 == other {
            there.push(*room);
        }
    }
    world.nodes()[lost].kill9().await;
    until(PATIENCE, || async { world.realtime.ping().await.is_err() }).await;
    assert!(world.realtime.publish(&[durable(rooms[0], 1)]).await.is_err());
    for rev in 1..=5 {
        world.publish(&[durable(there[0], rev)]).await;
        assert_eq!(next_text_after_loss(&world, &mut inbox).await, (there[0], rev.to_string()));
    }
    let new = there[1];
    world.realtime.unsubscribe(&inbox.id(), &[new]);
    world.realtime.subscribe(&inbox.id(), &[new]).await.expect("subscribed");
    world.nodes()[lost].start_again().await;
    until_reconnected(&mut inbox).await;
    world.until_whole(&mut inbox, &rooms).await;
    world.publish(&[durable(rooms[0], 1), durable(there[0], 6)]).await;
    let mut got = Vec::new();
    for _ in 0..2 {
        got.push(next_text_after_loss(&world, &mut inbox).await.1);
    }
    got.sort();
    assert_eq!(got, ["1", "6"]);
    assert!(!world.tasks.failed());
}

#[tokio::test]
async fn when_a_replica_takes_over_the_inbox_is_told_and_everything_goes_on() {
    let mut cluster = RedisCluster::start().await;
    let replica = cluster.add_replica_of(0).await;
    let world = World::on(cluster).await;
    let rooms: Vec<Channel> = (0..30).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    world.publish(&rooms.iter().map(|room| durable(*room, 1)).collect::<Vec<_>>()).await;
    for _ in &rooms {
        next_text(&mut inbox).await;
    }
    world.nodes()[replica].command("CLUSTER FAILOVER").await.expect("it takes over");
    until_reconnected(&mut inbox).await;
    world.until_whole(&mut inbox, &rooms).await;
    world.publish(&rooms.iter().map(|room| durable(*room, 2)).collect::<Vec<_>>()).await;
    for _ in &rooms {
        assert_eq!(next_text_after_loss(&world, &mut inbox).await.1, "2");
    }
    for room in &rooms {
        assert_eq!(world.log_after(*room, 0).await, Some(vec!["1".into(), "2".into()]));
    }
    world.nodes()[0].command("ROLE").await.expect("the old master lives");
}

#[tokio::test]
async fn a_wipe_of_one_node_is_noticed() {
    let world = World::new(Kind::Cluster).await;
    // Some of them lie on each node: who has nothing there need not know it yet.
    let rooms: Vec<Channel> = (0..60).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    for node in world.nodes() {
        node.command("FLUSHALL").await.expect("wiped");
        assert_eq!(until_reconnected(&mut inbox).await, 0);
    }
}

#[tokio::test]
async fn presence_outlives_the_move_of_its_slot() {
    let world = World::new(Kind::Cluster).await;
    let slot = world.cluster().slot_of(&world.about_people("")).await;
    let from = world.cluster().owner_of(&world.about_people("")).await;
    let arrive = async |user| {
        let lease = device(user, "phone", Uuid::now_v7());
        world.realtime.arrive(&lease, at(0)).await.expect("done");
        world.realtime.sessions_of(user).await.expect("an answer").len()
    };
    let (one, user) = (world.realtime.new_session(at(0)).await.expect("an id"), UserId::generate());
    assert_eq!(arrive(user).await, 1);
    world.cluster().move_slot(slot, from, (from + 1) % 3).await;
    assert_eq!(world.realtime.sessions_of(user).await.expect("an answer").len(), 1);
    assert_eq!(arrive(UserId::generate()).await, 1);
    assert!(world.realtime.new_session(at(0)).await.expect("an id") > one);
}

#[tokio::test]
async fn a_cluster_that_is_taken_for_one_server_is_refused_and_so_is_the_reverse() {
    let (server, cluster) = tokio::join!(RedisServer::start(), RedisCluster::start());
    let tasks = runtime::Tasks::new(runtime::Shutdown::new());
    let refused = async |url| match Realtime::open(RealtimeSettings::Redis { url }, &tasks).await {
        Err(RealtimeError::Misplaced(what)) => what,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opens"),
    };
    assert!(refused(cluster.nodes()[0].url()).await.contains("say redis+cluster://"));
    assert!(refused(server.url().replace("redis:", "redis+cluster:")).await.contains("say redis://"));
    assert!(refused(format!("{}/1", cluster.url())).await.contains("database 0"));
}
