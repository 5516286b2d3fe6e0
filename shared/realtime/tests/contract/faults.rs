//! What a Redis goes through, and what happens when an inbox is not read.

use std::time::{Duration, Instant};

use domain::{JobId, Rev, UserId};
use protocol::Channel;
use realtime::{Arrival, Inbox, LogAsked, LogNumber, RealtimeError};
use rstest::rstest;
use testkit::{PATIENCE, until};
use uuid::Uuid;

use super::world::{Kind, World, at, device, durable, next, next_text, passing, room, room_of, until_reconnected};

/// What is published arrives, all of it and in order.
async fn works(world: &World, inbox: &mut Inbox, channels: &[Channel]) {
    let deliveries: Vec<_> = channels.iter().map(|channel| passing(*channel, "works")).collect();
    until(PATIENCE, || async { world.realtime.publish(&deliveries).await.is_ok() }).await;
    for channel in channels {
        assert_eq!(next_text(inbox).await, (*channel, "works".into()));
    }
}

#[tokio::test]
async fn after_a_restart_of_redis_the_inbox_is_told_and_works_again() {
    let world = World::new(Kind::Redis).await;
    let rooms: Vec<Channel> = (0..3000).map(|_| room()).collect();
    let mut inbox = world.inbox(&rooms).await;
    works(&world, &mut inbox, &rooms[..10]).await;
    world.server().kill9().await;
    assert!(matches!(world.realtime.publish(&[durable(rooms[0], 1)]).await, Err(RealtimeError::Unavailable(_))));
    world.server().start_again().await;
    assert_eq!(until_reconnected(&mut inbox).await, 0);
    works(&world, &mut inbox, &rooms).await;
    until(PATIENCE, || async { world.realtime.ping().await.is_ok() }).await;
    assert!(!world.tasks.failed());
}

#[tokio::test]
async fn a_cut_subscription_connection_is_replaced_and_the_inbox_is_told() {
    let world = World::new(Kind::Redis).await;
    let rooms = [room(), room()];
    let mut inbox = world.inbox(&rooms).await;
    for _ in 0..3 {
        assert_eq!(world.ask_number("CLIENT KILL TYPE pubsub").await, 1);
        assert_eq!(next(&mut inbox).await, Arrival::Reconnected);
        works(&world, &mut inbox, &rooms).await;
    }
}

#[tokio::test]
async fn whoever_subscribes_while_redis_is_away_is_subscribed_when_it_is_back() {
    let world = World::new(Kind::Redis).await;
    let (before, meanwhile) = (room(), room());
    let mut inbox = world.inbox(&[before]).await;
    world.server().stop().await;
    let started = Instant::now();
    let refused = world.realtime.subscribe(&inbox.id(), &[meanwhile]).await;
    assert!(matches!(refused, Err(RealtimeError::Unavailable(_))));
    assert!(started.elapsed() < Duration::from_secs(4));
    world.server().start_again().await;
    until_reconnected(&mut inbox).await;
    works(&world, &mut inbox, &[before, meanwhile]).await;
}

#[tokio::test]
async fn a_wipe_is_noticed_and_everything_goes_on() {
    let world = World::new(Kind::Redis).await;
    let (room, job) = (room(), JobId::generate());
    let mut inbox = world.inbox(&[room]).await;
    let user = UserId::generate();
    world.publish(&[durable(room, 1)]).await;
    next_text(&mut inbox).await;
    world.realtime.claim(&[job]).await.expect("an answer");
    world.realtime.cache_rooms(user, &[room_of(room)]).await.expect("done");
    until(PATIENCE, || async { world.ask_number("EXISTS chat:mark").await == 1 }).await;
    world.ask("FLUSHALL").await;
    world.ask("SCRIPT FLUSH").await;
    assert_eq!(until_reconnected(&mut inbox).await, 0);
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

#[tokio::test]
async fn a_paused_redis_makes_every_call_unavailable_in_time() {
    let world = World::new(Kind::Redis).await;
    let rooms = [room()];
    let mut inbox = world.inbox(&rooms).await;
    world.server().pause();
    let started = Instant::now();
    let user = UserId::generate();
    let (id, deliveries, jobs) = (inbox.id(), [durable(rooms[0], 1)], [JobId::generate()]);
    let outcomes = tokio::join!(
        world.realtime.ping(),
        world.realtime.publish(&deliveries),
        async { world.realtime.claim(&jobs).await.map(|_| ()) },
        async { world.realtime.presence(&[user], at(0)).await.map(|_| ()) },
        async { world.realtime.since(&[room_of(rooms[0])], LogNumber::NONE, 10).await.map(|_| ()) },
        async { world.realtime.subscribe(&id, &[room()]).await },
    );
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_millis(2500), "{elapsed:?}");
    let (ping, publish, claim, presence, log, subscribe) = outcomes;
    for outcome in [ping, publish, claim, presence, log, subscribe] {
        assert!(matches!(outcome, Err(RealtimeError::Unavailable(_))));
    }
    // Left so long that the subscription connection is given up as dead.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.server().resume();
    until_reconnected(&mut inbox).await;
    works(&world, &mut inbox, &rooms).await;
}

#[tokio::test]
async fn a_connection_that_has_gone_silent_is_noticed_though_nobody_asks_anything() {
    let world = World::new(Kind::Redis).await;
    let rooms = [room()];
    let mut inbox = world.inbox(&rooms).await;
    // The probe that every connection begins with is over.
    until(PATIENCE, || async { world.ask_number("EXISTS chat:mark").await == 1 }).await;
    works(&world, &mut inbox, &rooms).await;
    world.server().pause();
    // Nobody asks anything meanwhile; the probes of the connection go unanswered.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.server().resume();
    until_reconnected(&mut inbox).await;
    works(&world, &mut inbox, &rooms).await;
}

#[tokio::test]
async fn opening_without_a_redis_is_an_error_and_not_a_wait() {
    let started = Instant::now();
    let tasks = runtime::Tasks::new(runtime::Shutdown::new());
    for url in ["redis://127.0.0.1:1/", "http://nonsense", ""] {
        let settings = realtime::RealtimeSettings::Redis { url: url.into() };
        let opened = realtime::Realtime::open(settings, &tasks).await;
        assert!(matches!(opened, Err(RealtimeError::Unavailable(_))));
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn secrets_in_the_address_are_never_shown() {
    let tasks = runtime::Tasks::new(runtime::Shutdown::new());
    let settings = realtime::RealtimeSettings::Redis { url: "redis://user:sesame@127.0.0.1:1/".into() };
    let shown = format!("{settings:?}");
    let Err(error) = realtime::Realtime::open(settings, &tasks).await else { panic!("nobody listens there") };
    assert!(!format!("{shown}{error}{error:?}").contains("sesame"));
}

#[rstest]
#[tokio::test]
async fn an_inbox_that_is_not_read_drops_everything_and_says_so(#[values(Kind::Redis, Kind::Embedded)] kind: Kind) {
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
