//! Catching up by `rev`: the room's log and the store answer the same, and the log only when it may.

use domain::{EventKind, JobId, MessageId, Rev, RoomId, Seq, Timestamp, UserId};
use handlers::{Handlers, Job};
use protocol::wire::{self, SyncedRoom};
use protocol::{Change, Channel, EventData, OpenedDelivery, delivery};
use realtime::{Outbound, RealtimeSettings};
use store::ReadMark;
use testkit::services::RedisServer;

use crate::world::{World, add, job, remove, send};

/// What a sync of one room by rev answers.
async fn synced(handlers: &Handlers, user: UserId, room: RoomId, after: i64) -> SyncedRoom {
    let asked = wire::SyncRoom { room_id: room.to_string(), after_seq: None, after_rev: Some(after) };
    let mut answer = handlers.sync(user, wire::Sync { rooms: vec![asked] }).await.expect("synced");
    answer.rooms.remove(0)
}

fn contents(room: &SyncedRoom) -> Vec<String> {
    let content = |event: &wire::RevEvent| match event.event.as_ref().and_then(|event| event.kind.as_ref()) {
        Some(EventData::MessageDelivered(said)) => said.content.clone().unwrap_or_else(|| "gone".to_owned()),
        other => panic!("only messages here: {other:?}"),
    };
    room.events.iter().map(content).collect()
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Something that one of the two might do in the room, to one of the messages if need be.
fn any_job(dice: &mut Dice, room: RoomId, [ann, ben, eve]: [UserId; 3], number: u64) -> Job {
    let actor = if dice.roll(2) == 0 { ann } else { ben };
    // Ids of messages are names of their sender over all rooms: each room has a thousand of its own.
    let target = number - dice.roll(number % 1000 + 1).min(20);
    let message_id = MessageId::of(ann, &format!("m{target}")).to_string();
    let room_id = room.to_string();
    let new = |kind, change| job(room, actor, JobId::generate(), kind, change);
    match dice.roll(10) {
        0..=2 => send(room, ann, &format!("m{number}"), &format!("words {number}")),
        3 | 4 => {
            let content = format!("better words {number}");
            let edit = Change::MessageEdit(wire::MessageEdit { room_id, message_id, content });
            job(room, ann, JobId::generate(), EventKind::MessageEdit, edit)
        }
        5 => new(
            EventKind::MessageDelete,
            Change::MessageDelete(wire::MessageDelete { room_id, message_id, for_everyone: true }),
        ),
        6..=8 => {
            let (emoji, remove) = (["👍", "a", "é", "👍🏿"][dice.roll(4) as usize].to_owned(), dice.roll(4) == 0);
            new(
                EventKind::MessageReact,
                Change::MessageReact(wire::MessageReact { room_id, message_id, emoji, remove }),
            )
        }
        _ if dice.roll(2) == 0 => add(room, ann, eve),
        _ => remove(room, ann, eve),
    }
}

#[tokio::test]
async fn the_log_and_the_store_tell_the_same_whatever_happened() {
    let redis = RedisServer::start().await;
    for engine in [RealtimeSettings::Embedded, RealtimeSettings::Redis { url: redis.url() }] {
        let world = World::over(engine).await;
        let people = [world.user().await, world.user().await, world.user().await];
        let without_log = world.after_a_wipe().await;
        for seed in 0..12 {
            let mut dice = Dice(seed);
            let room = world.group(people[0], &people[1..2]).await;
            let mut number = seed * 1000;
            while number < seed * 1000 + 60 {
                let size = 1 + dice.roll(12);
                let jobs = (0..size).map(|more| any_job(&mut dice, room, people, number + more)).collect::<Vec<_>>();
                world.apply(&jobs).await;
                number += size;
            }
            let end = synced(&world.handlers, people[0], room, 0).await.rev;
            assert!(end > 20, "much happened: {end}");
            for after in 0..=end {
                let from_log = synced(&world.handlers, people[0], room, after).await;
                let from_store = synced(&without_log, people[0], room, after).await;
                assert_eq!(from_log, from_store, "seed {seed}, after {after}");
                assert!(from_log.complete && from_log.events.len() as i64 == end - after);
            }
        }
    }
}

/// A message as it would be told, signed.
fn told(world: &World, room: RoomId, rev: i64, content: &str) -> Outbound {
    let said = wire::MessageDelivered {
        room_id: room.to_string(),
        message_id: format!("{rev}"),
        rev: Some(rev),
        content: Some(content.to_owned()),
        ..wire::MessageDelivered::default()
    };
    let event = EventData::MessageDelivered(said);
    let opened = OpenedDelivery { rev: Some(Rev(rev)), epoch: Rev(1), except: None, event };
    let channel = Channel::Room(room);
    Outbound { channel, rev: Some(Rev(rev)), payload: delivery::seal(channel, &opened, &world.keys) }
}

/// A room with three messages of which the log knows nothing yet.
async fn unlogged(world: &World) -> (UserId, RoomId) {
    let ann = world.user().await;
    let room = world.group(ann, &[]).await;
    let jobs: Vec<Job> = (1..=3).map(|number| send(room, ann, &format!("{room}{number}")[20..], "stored")).collect();
    world.after_a_wipe().await.apply(&jobs).await.expect("applied");
    (ann, room)
}

#[tokio::test]
async fn the_log_is_asked_first_and_only_as_far_as_the_store_says() {
    let world = World::new().await;
    let (ann, room) = unlogged(&world).await;
    let log: Vec<Outbound> = (2..=6).map(|rev| told(&world, room, rev, "logged")).collect();
    world.realtime.publish(&log).await.expect("published");
    let answer = synced(&world.handlers, ann, room, 1).await;
    assert_eq!(contents(&answer), ["logged"; 3], "revs 5 and 6 may be after the end of a membership");
    assert_eq!((answer.rev, answer.complete), (4, true));
    assert_eq!(contents(&synced(&world.handlers, ann, room, 3).await), ["logged"]);
    assert!(synced(&world.handlers, ann, room, 4).await.events.is_empty());
}

#[tokio::test]
async fn what_was_taken_back_after_the_store_was_read_stays_away() {
    let world = World::new().await;
    let (ann, room) = unlogged(&world).await;
    let mut log: Vec<Outbound> = (2..=4).map(|rev| told(&world, room, rev, "logged")).collect();
    let (channel, message_id) = (Channel::Room(room), "3".to_owned());
    let deleted = wire::MessageDeleted { room_id: room.to_string(), message_id, rev: 5, deleted_at: "now".to_owned() };
    let event = EventData::MessageDeleted(deleted);
    let opened = OpenedDelivery { rev: Some(Rev(5)), epoch: Rev(1), except: None, event };
    log.push(Outbound { channel, rev: Some(Rev(5)), payload: delivery::seal(channel, &opened, &world.keys) });
    world.realtime.publish(&log).await.expect("published");
    assert_eq!(contents(&synced(&world.handlers, ann, room, 1).await), ["logged", "gone", "logged"]);
}

#[tokio::test]
async fn a_log_that_is_short_or_forged_is_not_believed() {
    let world = World::new().await;
    let (ann, room) = unlogged(&world).await;
    world.realtime.publish(&[told(&world, room, 2, "logged"), told(&world, room, 3, "logged")]).await.expect("there");
    assert_eq!(contents(&synced(&world.handlers, ann, room, 1).await), ["stored"; 3], "the last one is not there yet");
    let elsewhere = Outbound { channel: Channel::Room(room), ..told(&world, RoomId::generate(), 4, "forged") };
    world.realtime.publish(&[elsewhere]).await.expect("published");
    assert_eq!(contents(&synced(&world.handlers, ann, room, 1).await), ["stored"; 3], "signed for another room");
}

#[tokio::test]
async fn without_redis_the_store_answers() {
    let redis = RedisServer::start().await;
    let world = World::over(RealtimeSettings::Redis { url: redis.url() }).await;
    let (ann, room) = unlogged(&world).await;
    let log: Vec<Outbound> = (2..=4).map(|rev| told(&world, room, rev, "logged")).collect();
    world.realtime.publish(&log).await.expect("published");
    assert_eq!(contents(&synced(&world.handlers, ann, room, 1).await), ["logged"; 3]);
    redis.command("FLUSHALL").await.expect("wiped");
    assert_eq!(contents(&synced(&world.handlers, ann, room, 1).await), ["stored"; 3]);
    drop(redis);
    assert_eq!(contents(&synced(&world.handlers, ann, room, 1).await), ["stored"; 3]);
}

#[tokio::test]
async fn a_read_mark_that_was_committed_late_is_told_by_a_poll() {
    let world = World::new().await;
    let ann = world.user().await;
    let room = world.group(ann, &[]).await;
    world.apply(&[send(room, ann, "m1", "hello")]).await;
    let before = world.handlers.poll(ann, None).await.expect("a cursor").cursor;
    let at = Timestamp(world.clock.now().0 - 9_000);
    let mark = ReadMark { room, user: ann, seq: Seq(1), at };
    world.store.set_read(room, ann, mark.seq, at).await.expect("set");
    let polled = world.handlers.poll(ann, Some(&before)).await.expect("news");
    let told: Vec<EventData> = polled.items.into_iter().filter_map(|item| item.event?.kind).collect();
    assert_eq!(told, [EventData::MessageRead(mark.to_wire())]);
    assert!(world.handlers.poll(ann, Some(&polled.cursor)).await.expect("an answer").items.is_empty(), "once");
}
