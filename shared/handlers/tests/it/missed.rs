//! What a connection missed: all of it or nothing, also when a room's log was lost in between.

use domain::{RoomId, UserId};
use protocol::{Channel, EventData};
use realtime::{Arrival, Inbox, LogNumber, RealtimeSettings};
use testkit::services::RedisServer;

use crate::world::{World, send};

/// Two rooms of Ann's over a Redis that may lose something.
struct Scene {
    redis: RedisServer,
    world: World,
    ann: UserId,
    room: RoomId,
    other: RoomId,
    inbox: Inbox,
}

impl Scene {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let world = World::over(RealtimeSettings::Redis { url: redis.url() }).await;
        let ann = world.user().await;
        let (room, other) = (world.group(ann, &[]).await, world.group(ann, &[]).await);
        let inbox = world.realtime.inbox();
        let channels = [Channel::Room(room), Channel::Room(other)];
        world.realtime.subscribe(&inbox.id(), &channels).await.expect("subscribed");
        Self { redis, world, ann, room, other, inbox }
    }

    /// Ann says something; the number of its delivery.
    async fn say(&mut self, room: RoomId, text: &str) -> LogNumber {
        self.world.apply(&[send(room, self.ann, text, text)]).await;
        match self.inbox.recv().await.expect("open") {
            Arrival::Delivery { number, .. } => number,
            Arrival::Reconnected => panic!("nothing was lost"),
        }
    }

    async fn lose_the_log(&self) {
        self.redis.command(&format!("DEL chat:log:{}", self.room)).await.expect("lost");
    }

    /// What was said after a number, if that is known.
    async fn missed(&self, after: LogNumber) -> Option<Vec<String>> {
        let rooms = self.world.store.membership_of(self.ann).await.expect("reads").expect("is there").rooms;
        let content = |event| match event {
            EventData::MessageDelivered(said) => said.content.expect("a text"),
            other => panic!("{other:?}"),
        };
        let missed = self.world.handlers.missed(&rooms, after).await.expect("an answer")?;
        Some(missed.into_iter().map(|missed| content(missed.delivery.event)).collect())
    }
}

#[tokio::test]
async fn a_log_that_was_lost_between_two_changes_makes_no_recovery_in_part() {
    let mut scene = Scene::new().await;
    let room = scene.room;
    let before = scene.say(room, "one").await;
    let offset = scene.say(room, "two").await;
    scene.say(room, "three").await;
    assert_eq!(scene.missed(before).await, Some(vec!["two".to_owned(), "three".to_owned()]));
    scene.lose_the_log().await;
    assert_eq!(scene.missed(offset).await, None, "no log, and something happened a moment ago");
    let last = scene.say(room, "four").await;
    assert_eq!(scene.missed(offset).await, None, "three is missing");
    assert_eq!(scene.missed(last).await, Some(vec![]), "but not for who has the last one");
}

#[tokio::test]
async fn a_log_that_begins_anew_after_a_long_silence_tells_all() {
    let mut scene = Scene::new().await;
    let (room, other) = (scene.room, scene.other);
    scene.world.clock.shift(-300_000);
    scene.say(room, "long ago").await;
    scene.world.clock.shift(300_000);
    scene.lose_the_log().await;
    let offset = scene.say(other, "now").await;
    scene.say(room, "news").await;
    assert_eq!(scene.missed(offset).await, Some(vec!["news".to_owned()]));
    let new = scene.world.group(scene.ann, &[]).await;
    scene.world.apply(&[send(new, scene.ann, "first", "first")]).await;
    assert_eq!(scene.missed(offset).await, Some(vec!["news".to_owned(), "first".to_owned()]), "made a moment ago");
}
