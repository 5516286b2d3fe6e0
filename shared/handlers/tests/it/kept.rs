//! What is not kept any more is said to be missing, never left out.

use domain::{Rev, RoomId, Timestamp, UserId};
use protocol::wire::{self, SyncRoom, SyncedRoom};
use protocol::{Code, EventData};
use realtime::RealtimeSettings;
use store::RoomWalk;
use testkit::services::RedisServer;

use crate::world::{World, add, remove, send};

const DAY_MS: i64 = 24 * 3_600_000;
/// How long the changes of rooms are kept here.
const KEPT_MS: i64 = 90 * DAY_MS;

/// Lets something happen a hundred days ago.
async fn long_ago<T>(world: &World, happens: impl Future<Output = T>) -> T {
    world.clock.shift(-100 * DAY_MS);
    let happened = happens.await;
    world.clock.shift(100 * DAY_MS);
    happened
}

async fn prune(world: &World) {
    let before = Timestamp(world.clock.now().0 - KEPT_MS);
    let mut walk = RoomWalk::default();
    while !world.store.prune_room_log(&mut walk, before).await.expect("removes").at_end {}
    world.store.forget_departures(before, 100).await.expect("removes");
}

async fn say(world: &World, room: RoomId, who: UserId, names: &[&str]) {
    let jobs: Vec<_> = names.iter().map(|name| send(room, who, name, name)).collect();
    world.apply(&jobs).await;
}

async fn synced(world: &World, user: UserId, asked: Vec<SyncRoom>) -> Vec<SyncedRoom> {
    // The logs of rooms are minutes old, and an engine that began anew has none.
    world.after_a_wipe().await.sync(user, wire::Sync { rooms: asked }).await.expect("an answer").rooms
}

fn by_rev(room: RoomId, after: i64) -> SyncRoom {
    SyncRoom { room_id: room.to_string(), after_seq: None, after_rev: Some(after) }
}

/// Ann and Ben in a room with two old messages and one of now, of which the first three changes are gone.
async fn scene() -> (World, UserId, UserId, RoomId) {
    let world = World::new().await;
    let (ann, ben) = (world.user().await, world.user().await);
    let room = long_ago(
        &world,
        Box::pin(async {
            let room = world.group(ann, &[ben]).await;
            say(&world, room, ann, &["old", "older"]).await;
            room
        }),
    )
    .await;
    say(&world, room, ann, &["new"]).await;
    prune(&world).await;
    (world, ann, ben, room)
}

#[tokio::test]
async fn a_sync_from_before_what_is_kept_says_too_old_and_where_the_room_stands() {
    let (world, ann, _, room) = scene().await;
    let other = world.group(ann, &[]).await;
    let answer = synced(&world, ann, vec![by_rev(room, 2), by_rev(other, 0)]).await;
    let [old, whole] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!((old.code.as_deref(), old.last_seq, old.rev), (Some("TOO_OLD"), 3, 4));
    assert!(old.events.is_empty() && !old.complete, "nothing that looks like all there is: {old:?}");
    assert_eq!((whole.code.as_deref(), whole.events.len(), whole.complete), (None, 1, true));

    // From there on, and by seq from anywhere, it goes on.
    let later = &synced(&world, ann, vec![by_rev(room, 3)]).await[0];
    assert_eq!((later.code.as_deref(), later.events.len(), later.complete), (None, 1, true));
    let seqs = SyncRoom { room_id: room.to_string(), after_seq: Some(0), after_rev: None };
    let messages = &synced(&world, ann, vec![seqs]).await[0];
    assert_eq!((messages.messages.len(), messages.complete), (3, true));
}

#[tokio::test]
async fn a_poll_from_before_what_is_kept_is_refused_and_a_new_one_goes_on() {
    let (world, ann, ben) = {
        let world = World::new().await;
        let (ann, ben) = (world.user().await, world.user().await);
        (world, ann, ben)
    };
    let (room, cursor) = long_ago(
        &world,
        Box::pin(async {
            let room = world.group(ann, &[ben]).await;
            let cursor = world.handlers.poll(ben, None).await.expect("a cursor").cursor;
            say(&world, room, ann, &["old", "older"]).await;
            (room, cursor)
        }),
    )
    .await;
    let fresh = world.handlers.poll(ben, None).await.expect("a cursor").cursor;
    say(&world, room, ann, &["new"]).await;
    prune(&world).await;
    let handlers = world.after_a_wipe().await;
    assert_eq!(handlers.poll(ben, Some(&cursor)).await.expect_err("refused").code, Code::TooOld);
    assert_eq!(handlers.poll(ben, Some(&fresh)).await.expect("news").items.len(), 1);
}

#[tokio::test]
async fn a_poll_that_knows_a_room_left_so_long_ago_that_nobody_knows_is_refused() {
    let world = World::new().await;
    let (ann, ben) = (world.user().await, world.user().await);
    let (cursor, room) = long_ago(
        &world,
        Box::pin(async {
            let room = world.group(ann, &[ben]).await;
            let cursor = world.handlers.poll(ben, None).await.expect("a cursor").cursor;
            world.apply(&[remove(room, ann, ben)]).await;
            (cursor, room)
        }),
    )
    .await;
    let told = world.handlers.poll(ben, Some(&cursor)).await.expect("the departure");
    assert_eq!(told.items.len(), 1);
    say(&world, room, ann, &["new"]).await;
    prune(&world).await;
    assert_eq!(world.handlers.poll(ben, Some(&cursor)).await.expect_err("refused").code, Code::TooOld);
    assert!(world.handlers.poll(ben, Some(&told.cursor)).await.expect("an answer").items.is_empty());
}

#[tokio::test]
async fn a_gap_that_nobody_can_fill_is_no_replay() {
    let (world, ann, ben, room) = scene().await;
    let handlers = world.after_a_wipe().await;
    assert_eq!(handlers.replay(room, Rev(1), Rev(4)).await.expect("an answer"), None);
    let kept = handlers.replay(room, Rev(3), Rev(4)).await.expect("an answer").expect("kept");
    assert_eq!(kept.len(), 1);
    // Who joins now begins where the joining is.
    world.apply(&[remove(room, ann, ben)]).await;
    world.apply(&[add(room, ann, ben)]).await;
    assert_eq!(world.store.joined_rev(room, ben).await, Ok(Some(Rev(6))));
}

#[tokio::test]
async fn the_same_message_sent_again_is_the_same_message_though_its_change_has_gone() {
    let (world, ann, _, room) = scene().await;
    let outcomes = world.after_a_wipe().await.apply(&[send(room, ann, "old", "old")]).await.expect("applied");
    assert_eq!(outcomes, [handlers::Outcome::Duplicate]);
    assert_eq!(world.store.room(room).await.expect("reads").expect("is there").last_seq.0, 3);
}

#[tokio::test]
async fn a_connection_recovers_though_what_came_before_its_break_is_not_kept() {
    let redis = RedisServer::start().await;
    let world = World::over(RealtimeSettings::Redis { url: redis.url() }).await;
    let ann = world.user().await;
    let (quiet, busy) = long_ago(
        &world,
        Box::pin(async {
            let quiet = world.group(ann, &[]).await;
            say(&world, quiet, ann, &["old"]).await;
            (quiet, world.group(ann, &[]).await)
        }),
    )
    .await;
    redis.command("FLUSHALL").await.expect("logs end by themselves after minutes");
    let channel = protocol::Channel::Room(busy);
    let mut inbox = world.inbox(channel).await;
    say(&world, busy, ann, &["last seen"]).await;
    let offset = match inbox.recv().await.expect("open") {
        realtime::Arrival::Delivery { number, .. } => number,
        realtime::Arrival::Reconnected => panic!("nothing was lost"),
    };
    // The log begins after a change that is not kept.
    say(&world, quiet, ann, &["news"]).await;
    prune(&world).await;
    let rooms = world.store.membership_of(ann).await.expect("reads").expect("is there").rooms;
    let missed = world.handlers.missed(&rooms, offset).await.expect("an answer").expect("all of it");
    let contents = missed.iter().map(|missed| match &missed.delivery.event {
        EventData::MessageDelivered(said) => said.content.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    });
    assert_eq!(contents.collect::<Vec<_>>(), ["news"]);
}
