//! What a Redis goes through, and what happens when an inbox is not read.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::{JobId, Rev, UserId};
use protocol::Channel;
use realtime::{Arrival, Inbox, LogAsked, RealtimeError};
use rstest::rstest;
use testkit::services::RedisServer;
use testkit::{PATIENCE, until};
use tokio::time::timeout;
use uuid::Uuid;

use super::world::{
    Kind, World, at, device, durable, next, next_text, next_text_after_loss, number, passing, room, room_of,
    until_reconnected,
};

/// What is published arrives, all of it.
async fn works(world: &World, inbox: &mut Inbox, channels: &[Channel]) {
    let deliveries: Vec<_> = channels.iter().map(|channel| passing(*channel, "works")).collect();
    until(PATIENCE, || async { world.realtime.publish(&deliveries).await.is_ok() }).await;
    let mut expected: HashSet<Channel> = channels.iter().copied().collect();
    while !expected.is_empty() {
        let (channel, text) = next_text_after_loss(world, inbox).await;
        assert_eq!(text, "works");
        // What was published in vain on some of the nodes arrives again from the others.
        expected.remove(&channel);
    }
    while let Ok(arrival) = timeout(Duration::from_millis(50), inbox.recv()).await {
        let is_late_word = arrival == Some(Arrival::Reconnected) && world.nodes().len() > 1;
        assert!(is_late_word || matches!(arrival, Some(Arrival::Delivery { .. })), "{arrival:?}");
    }
}

#[rstest]
#[tokio::test]
async fn after_a_restart_of_redis_the_inbox_is_told_and_works_again(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let rooms: Vec<Channel> = (0..3000).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    works(&world, &mut inbox, &rooms[..10]).await;
    world.each(RedisServer::kill9).await;
    assert!(matches!(world.realtime.publish(&[durable(rooms[0], 1)]).await, Err(RealtimeError::Unavailable(_))));
    world.each(RedisServer::start_again).await;
    assert_eq!(until_reconnected(&mut inbox).await, 0);
    world.until_whole(&mut inbox, &rooms).await;
    works(&world, &mut inbox, &rooms).await;
    until(PATIENCE, || async { world.realtime.ping().await.is_ok() }).await;
    assert!(!world.tasks.failed());
}

#[rstest]
#[tokio::test]
async fn a_cut_subscription_connection_is_replaced_and_the_inbox_is_told(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    let rooms = [room(), room()];
    let mut inbox = world.inbox(&rooms).await;
    for _ in 0..3 {
        assert_eq!(number(&world.node_of(rooms[0]).await.command("CLIENT KILL TYPE pubsub").await.expect("killed")), 1);
        assert_eq!(next(&mut inbox).await, Arrival::Reconnected);
        works(&world, &mut inbox, &rooms).await;
    }
}

#[rstest]
#[tokio::test]
async fn what_comes_over_a_new_connection_comes_after_the_word_that_something_may_be_missing(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    // So many that subscribing to all of them takes a while.
    let rooms: Vec<Channel> = (0..20_000).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    let node = world.node_of(rooms[0]).await;
    let (is_over, mut published) = (AtomicBool::new(false), 0);
    let publishing = async {
        while !is_over.load(Ordering::Relaxed) {
            published += 1;
            world.publish(&rooms.iter().map(|room| durable(*room, published)).collect::<Vec<_>>()[..50]).await;
        }
    };
    let reading = async {
        for _ in 0..3 {
            let mut last: HashMap<Channel, i64> = HashMap::new();
            node.command("CLIENT KILL TYPE pubsub").await.expect("killed");
            loop {
                match next(&mut inbox).await {
                    Arrival::Reconnected => break,
                    Arrival::Delivery { channel, payload, .. } => {
                        let rev: i64 = std::str::from_utf8(&payload).expect("text").parse().expect("a rev");
                        let before = last.insert(channel, rev);
                        assert!(before.is_none_or(|before| rev == before + 1), "{rev} came after {before:?}");
                    }
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(publishing, reading);
}

#[rstest]
#[tokio::test]
async fn whoever_subscribes_while_redis_is_away_is_subscribed_when_it_is_back(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (before, meanwhile) = (room(), room());
    let mut inbox = world.inbox(&[before]).await;
    world.each(RedisServer::stop).await;
    let started = Instant::now();
    let refused = world.realtime.subscribe(&inbox.id(), &[meanwhile]).await;
    assert!(matches!(refused, Err(RealtimeError::Unavailable(_))));
    assert!(started.elapsed() < Duration::from_secs(4));
    world.each(RedisServer::start_again).await;
    until_reconnected(&mut inbox).await;
    world.until_whole(&mut inbox, &[before, meanwhile]).await;
    works(&world, &mut inbox, &[before, meanwhile]).await;
}

#[rstest]
#[tokio::test]
async fn a_wipe_is_noticed_and_everything_goes_on(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let (room, job) = (room(), JobId::generate());
    let mut inbox = world.inbox(&[room]).await;
    let user = UserId::generate();
    world.publish(&[durable(room, 1)]).await;
    next_text(&mut inbox).await;
    world.realtime.claim(&[job]).await.expect("an answer");
    world.realtime.cache_rooms(user, &[room_of(room)]).await.expect("done");
    world.ask_all("FLUSHALL").await;
    world.ask_all("SCRIPT FLUSH").await;
    assert_eq!(until_reconnected(&mut inbox).await, 0);
    // Nodes that are seen at one moment to be wiped are one word.
    until(PATIENCE, || world.is_marked()).await;
    world.until_whole(&mut inbox, &[room]).await;
    assert_eq!(world.realtime.cached_rooms(user).await, Ok(None));
    let asked = |after| [LogAsked { room: room_of(room), after: Rev(after), limit: 10 }];
    assert_eq!(world.realtime.room_logs(&asked(0), 100).await, Ok(vec![None]));
    assert_eq!(world.realtime.claim(&[job]).await, Ok(vec![true]), "the store decides");
    world.realtime.arrive(&device(user, "phone", Uuid::now_v7()), at(0)).await.expect("done");
    assert_eq!(world.realtime.due_presence(10, at(0)).await.expect("an answer").looks.len(), 1, "was offline");
    world.publish(&[durable(room, 2), durable(room, 3)]).await;
    assert_eq!(next_text(&mut inbox).await.1, "2");
    assert_eq!(world.realtime.room_logs(&asked(1), 100).await, Ok(vec![Some(vec!["2".into(), "3".into()])]));
}

#[rstest]
#[tokio::test]
async fn a_wipe_right_after_the_subscriptions_came_back_is_noticed(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    for _ in 0..3 {
        world.node_of(room).await.command("FLUSHALL").await.expect("wiped");
        assert_eq!(until_reconnected(&mut inbox).await, 0);
        world.node_of(room).await.command("CLIENT KILL TYPE pubsub").await.expect("cut");
        assert_eq!(until_reconnected(&mut inbox).await, 0);
    }
}

#[rstest]
#[tokio::test]
async fn a_paused_redis_makes_every_call_unavailable_in_time(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let rooms = [room()];
    let mut inbox = world.inbox(&rooms).await;
    world.nodes().iter().for_each(RedisServer::pause);
    let started = Instant::now();
    let user = UserId::generate();
    let (id, deliveries, jobs) = (inbox.id(), [durable(rooms[0], 1)], [JobId::generate()]);
    let asked = [LogAsked { room: room_of(rooms[0]), after: Rev(0), limit: 10 }];
    let outcomes = tokio::join!(
        world.realtime.ping(),
        world.realtime.publish(&deliveries),
        async { world.realtime.claim(&jobs).await.map(|_| ()) },
        async { world.realtime.presence(&[user], at(0)).await.map(|_| ()) },
        async { world.realtime.room_logs(&asked, 10).await.map(|_| ()) },
        world.realtime.count_drained(&[(0, [1; 3])]),
        async { world.realtime.drained(4).await.map(|_| ()) },
        async { world.realtime.subscribe(&id, &[room()]).await },
    );
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_millis(2500), "{elapsed:?}");
    let (ping, publish, claim, presence, log, count, drained, subscribe) = outcomes;
    for outcome in [ping, publish, claim, presence, log, count, drained, subscribe] {
        assert!(matches!(outcome, Err(RealtimeError::Unavailable(_))));
    }
    // Left so long that the subscription connection is given up as dead.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.nodes().iter().for_each(RedisServer::resume);
    until_reconnected(&mut inbox).await;
    world.until_whole(&mut inbox, &rooms).await;
    works(&world, &mut inbox, &rooms).await;
}

#[rstest]
#[tokio::test]
async fn a_connection_that_has_gone_silent_is_noticed_though_nobody_asks_anything(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    let rooms = [room()];
    let mut inbox = world.inbox(&rooms).await;
    // The probe that every connection begins with is over.
    until(PATIENCE, || world.is_marked()).await;
    works(&world, &mut inbox, &rooms).await;
    world.nodes().iter().for_each(RedisServer::pause);
    // Nobody asks anything meanwhile; the probes of the connection go unanswered.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.nodes().iter().for_each(RedisServer::resume);
    until_reconnected(&mut inbox).await;
    world.until_whole(&mut inbox, &rooms).await;
    works(&world, &mut inbox, &rooms).await;
}

#[rstest]
#[tokio::test]
async fn a_redis_that_answers_and_takes_nothing_is_away(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    world.realtime.ping().await.expect("whole");
    let last = world.nodes().last().expect("a node");
    last.command("CONFIG SET maxmemory 1").await.expect("set");
    let Err(RealtimeError::Unavailable(said)) = world.realtime.ping().await else { panic!("it is full") };
    assert!(said.contains("OOM"), "{said}");
    last.command("CONFIG SET maxmemory 0").await.expect("set");
    world.realtime.ping().await.expect("whole again");
    if matches!(kind, Kind::Redis) {
        last.command("REPLICAOF 127.0.0.1 1").await.expect("set");
        let Err(RealtimeError::Unavailable(said)) = world.realtime.ping().await else { panic!("it is a replica") };
        assert!(said.to_lowercase().contains("read"), "{said}");
        last.command("REPLICAOF NO ONE").await.expect("set");
        world.realtime.ping().await.expect("whole again");
    }
}

#[tokio::test]
async fn opening_without_a_redis_is_an_error_and_not_a_wait() {
    let started = Instant::now();
    let tasks = runtime::Tasks::new(runtime::Shutdown::new());
    for url in ["redis://127.0.0.1:1/", "redis+cluster://127.0.0.1:1,127.0.0.1:2", "http://nonsense", ""] {
        let settings = realtime::RealtimeSettings::Redis { url: url.into() };
        let opened = realtime::Realtime::open(settings, &tasks).await;
        assert!(matches!(opened, Err(RealtimeError::Unavailable(_))));
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn secrets_in_the_address_are_never_shown() {
    let tasks = runtime::Tasks::new(runtime::Shutdown::new());
    for url in ["redis://user:sesame@127.0.0.1:1/", "redis+cluster://user:sesame@127.0.0.1:1,127.0.0.1:2"] {
        let settings = realtime::RealtimeSettings::Redis { url: url.into() };
        let shown = format!("{settings:?}");
        let Err(error) = realtime::Realtime::open(settings, &tasks).await else { panic!("nobody listens there") };
        assert!(!format!("{shown}{error}{error:?}").contains("sesame"));
    }
}

#[rstest]
#[tokio::test]
async fn an_inbox_that_is_not_read_drops_everything_and_says_so(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let room = room();
    let mut inbox = world.inbox(&[room]).await;
    let slice: Vec<_> = (0..1000).map(|_| passing(room, "x")).collect();
    for _ in 0..70 {
        world.publish(&slice).await;
    }
    world.publish(&[passing(room, "last")]).await;
    assert_eq!(next(&mut inbox).await, Arrival::Reconnected);
    let mut after = 1;
    while next_text(&mut inbox).await.1 != "last" {
        after += 1;
    }
    assert!(after < 70_001, "{after}");
}
