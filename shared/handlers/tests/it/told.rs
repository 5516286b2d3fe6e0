//! What is told, and to whom; what is cached; what is decided without Redis.

use domain::room::RoomKind;
use domain::{EventKind, JobId, RoomId, UserId};
use handlers::Outcome;
use protocol::{Change, Channel, Code, EventData, wire};
use realtime::RealtimeSettings;
use testkit::services::RedisServer;

use crate::world::{World, add, job, remove, send, typing};

#[tokio::test]
async fn typing_of_who_was_removed_meanwhile_is_not_told() {
    let world = World::new().await;
    let (ann, ben) = (world.user().await, world.user().await);
    let room = world.group(ann, &[ben]).await;
    let mut inbox = world.inbox(Channel::Room(room)).await;
    world.apply(&[typing(room, ben), typing(room, ann), remove(room, ann, ben)]).await;
    let typers: Vec<String> = world
        .arrived(&mut inbox, Channel::Room(room))
        .await
        .into_iter()
        .filter_map(|event| if let EventData::Typing(typing) = event { Some(typing.user_id) } else { None })
        .collect();
    assert_eq!(typers, [ann.to_string()]);
}

#[tokio::test]
async fn a_refusal_stands_when_redis_has_forgotten_the_claim() {
    let world = World::new().await;
    let (ann, ben) = (world.user().await, world.user().await);
    let room = world.group(ann, &[]).await;
    assert_eq!(world.apply(&[send(room, ben, "m1", "hello")]).await, [Outcome::Refused(Code::NotFound)]);
    world.apply(&[add(room, ann, ben)]).await;
    let forgetful = world.after_a_wipe().await;
    let again = forgetful.apply(&[send(room, ben, "m1", "hello"), send(room, ben, "m2", "news")]).await;
    assert_eq!(again.expect("applied"), [Outcome::Duplicate, Outcome::Stored]);
}

#[tokio::test]
async fn a_direct_room_in_which_nothing_happened_is_told_again_when_asked_for_again() {
    let world = World::new().await;
    let (ann, ben) = (world.user().await, world.user().await);
    let channel = Channel::User(ben);
    let mut inbox = world.inbox(channel).await;
    let ask = async || world.handlers.create_room(ann, RoomKind::Direct, None, vec![ben]).await.expect("a room");
    let made = ask().await;
    let first = world.arrived(&mut inbox, channel).await;
    assert!(matches!(first[..], [EventData::RoomCreated(_)]));
    assert!(ask().await.existed);
    assert_eq!(world.arrived(&mut inbox, channel).await, first);
    world.apply(&[send(made.room.id, ann, "m1", "hello")]).await;
    ask().await;
    assert_eq!(world.arrived(&mut inbox, channel).await, []);
}

/// The members of a room by Redis' own account, sorted.
async fn members_in_redis(redis: &RedisServer, room: RoomId) -> Vec<String> {
    let answer = redis.command(&format!("SMEMBERS chat:room:members:{room}")).await.expect("answers");
    let mut ids: Vec<String> = answer.lines().filter(|line| line.len() == 36).map(str::to_owned).collect();
    ids.sort();
    ids
}

fn sorted(users: &[UserId]) -> Vec<String> {
    let mut ids: Vec<String> = users.iter().map(UserId::to_string).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn redis_holds_the_members_of_a_room_as_they_are() {
    let redis = RedisServer::start().await;
    let world = World::over(RealtimeSettings::Redis { url: redis.url() }).await;
    let (ann, ben, eve) = (world.user().await, world.user().await, world.user().await);
    let room = world.group(ann, &[ben]).await;
    assert_eq!(members_in_redis(&redis, room).await, sorted(&[ann, ben]));
    world.apply(&[add(room, ann, eve)]).await;
    assert_eq!(members_in_redis(&redis, room).await, sorted(&[ann, ben, eve]));
    world.apply(&[remove(room, ann, ben)]).await;
    assert_eq!(members_in_redis(&redis, room).await, sorted(&[ann, eve]));
}

#[tokio::test]
async fn what_is_ephemeral_is_dropped_and_not_given_back_when_it_cannot_be_told() {
    let redis = RedisServer::start().await;
    let world = World::over(RealtimeSettings::Redis { url: redis.url() }).await;
    let (ann, ben) = (world.user().await, world.user().await);
    let room = world.group(ann, &[ben]).await;
    redis.stop().await;
    let wish = Change::PresenceSet(wire::PresenceSet { status: "away".into() });
    let nowhere = RoomId(uuid::Uuid::nil());
    let jobs = [typing(room, ann), job(nowhere, ann, JobId::generate(), EventKind::PresenceSet, wish)];
    assert_eq!(world.apply(&jobs).await, [Outcome::Ephemeral, Outcome::Ephemeral]);
}
