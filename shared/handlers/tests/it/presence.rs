//! Who is told of whose presence, and what it costs when a crowd comes at once.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::room::RoomKind;
use domain::{DeviceId, EventKind, JobId, RoomId, SessionId, UserId};
use handlers::{Handlers, Told};
use protocol::{Change, Channel, EventData, wire};
use realtime::{DeviceLease, LOOK_WITHIN, RealtimeSettings};
use store::{ImportRoom, ImportUser};
use testkit::services::RedisServer;
use uuid::Uuid;

use crate::world::{World, job};

impl World {
    async fn people(&self, count: usize) -> Vec<UserId> {
        let user = |_| ImportUser {
            id: UserId::generate(),
            email: None,
            password_hash: None,
            first_name: "A".to_owned(),
            last_name: "B".to_owned(),
        };
        let users: Vec<ImportUser> = (0..count).map(user).collect();
        let mut import = self.store.begin_import(self.clock.now()).await.expect("an import");
        import.users(&users).await.expect("users");
        import.commit().await.expect("a commit");
        users.into_iter().map(|user| user.id).collect()
    }

    async fn direct_rooms(&self, pairs: impl Iterator<Item = (UserId, UserId)>) {
        let room = |(one, other)| ImportRoom {
            id: RoomId::direct(one, other),
            kind: RoomKind::Direct,
            title: None,
            members: vec![one, other],
        };
        let rooms: Vec<ImportRoom> = pairs.map(room).collect();
        let mut import = self.store.begin_import(self.clock.now()).await.expect("an import");
        import.rooms(&rooms).await.expect("rooms");
        import.commit().await.expect("a commit");
    }

    async fn arrive(&self, user: UserId) -> DeviceLease {
        let device = DeviceId::parse("phone").expect("a good name");
        let lease = DeviceLease { user, device, session: SessionId::generate(), gateway: Uuid::nil() };
        self.realtime.arrive(&lease, self.clock.now()).await.expect("arrived");
        lease
    }

    async fn wish(&self, user: UserId, status: &str) {
        let wish = wire::PresenceSet { status: status.to_owned() };
        let nowhere = RoomId(Uuid::nil());
        let job = job(nowhere, user, JobId::generate(), EventKind::PresenceSet, Change::PresenceSet(wish));
        self.apply(&[job]).await;
    }

    async fn query(&self, handlers: &Handlers, viewer: UserId, user: UserId) -> String {
        let query = wire::PresenceQuery { user_ids: vec![user.to_string()] };
        handlers.presence_query(viewer, query).await.expect("an answer").users[0].status.clone()
    }
}

/// Tells until nobody is due any more; what was done, and in how many slices.
async fn tell_all(handlers: &Handlers) -> (Told, usize) {
    let (mut sum, mut slices) = (Told::default(), 0);
    loop {
        let told = handlers.tell_presence().await.expect("told");
        sum.looked += told.looked;
        sum.told += told.told;
        sum.deliveries += told.deliveries;
        slices += 1;
        if !told.is_full {
            return (sum, slices);
        }
    }
}

fn statuses(events: &[EventData]) -> Vec<&str> {
    let mut found = Vec::new();
    for event in events {
        match event {
            EventData::PresenceChanged(changed) => found.push(changed.status.as_str()),
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn partners_who_listen_are_told_and_nobody_else() {
    let world = World::new().await;
    let people = world.people(4).await;
    let [ann, ben, eve, lone] = people[..] else { panic!("four") };
    world.direct_rooms([(ann, ben), (ann, eve)].into_iter()).await;
    world.group(lone, &[ann]).await;
    let mut bens = world.inbox(Channel::User(ben)).await;
    let mut lones = world.inbox(Channel::User(lone)).await;
    world.arrive(ann).await;
    let (told, _) = tell_all(&world.handlers).await;
    assert_eq!((told.told, told.deliveries), (1, 1), "eve is not there");
    assert_eq!(statuses(&world.arrived(&mut bens, Channel::User(ben)).await), ["online"]);
    assert_eq!(world.arrived(&mut lones, Channel::User(lone)).await, [], "a group is no direct room");
    // Somebody without direct rooms costs no delivery.
    world.arrive(lone).await;
    let (told, _) = tell_all(&world.handlers).await;
    assert_eq!((told.looked, told.told, told.deliveries), (1, 1, 0));
    assert_eq!(tell_all(&world.handlers).await, (Told::default(), 1));
}

#[tokio::test]
async fn what_one_who_asks_is_shown_is_what_the_others_were_told() {
    let world = World::with_grace(Duration::from_secs(15)).await;
    let people = world.people(2).await;
    let (ann, ben) = (people[0], people[1]);
    world.direct_rooms(std::iter::once((ann, ben))).await;
    let channel = Channel::User(ben);
    let mut bens = world.inbox(channel).await;
    let lease = world.arrive(ann).await;
    assert_eq!(world.query(&world.handlers, ben, ann).await, "online", "before anybody was told");
    tell_all(&world.handlers).await;
    world.realtime.depart(&lease, world.clock.now()).await.expect("departed");
    world.clock.shift(14_000);
    tell_all(&world.handlers).await;
    assert_eq!(world.query(&world.handlers, ben, ann).await, "online", "within the grace");
    assert_eq!(statuses(&world.arrived(&mut bens, channel).await), ["online"]);
    world.clock.shift(1_001);
    tell_all(&world.handlers).await;
    assert_eq!(world.query(&world.handlers, ben, ann).await, "offline");
    assert_eq!(statuses(&world.arrived(&mut bens, channel).await), ["offline"]);
}

#[tokio::test]
async fn who_hides_is_hidden_still_after_everything_was_forgotten() {
    let world = World::new().await;
    let people = world.people(3).await;
    let [ann, ben, eve] = people[..] else { panic!("three") };
    world.direct_rooms([(ann, ben), (eve, ben)].into_iter()).await;
    for user in [ann, eve] {
        world.arrive(user).await;
    }
    world.wish(ann, "invisible").await;
    world.wish(eve, "busy").await;
    tell_all(&world.handlers).await;
    let (handlers, realtime) = world.after_a_wipe_with_realtime().await;
    let channel = Channel::User(ben);
    let mut bens = realtime.inbox();
    realtime.subscribe(&bens.id(), &[channel]).await.expect("subscribed");
    for user in [ann, eve] {
        let device = DeviceId::parse("phone").expect("a good name");
        let lease = DeviceLease { user, device, session: SessionId::generate(), gateway: Uuid::nil() };
        realtime.arrive(&lease, world.clock.now()).await.expect("arrived");
    }
    // Before and after the wish was looked up for good.
    for _ in 0..2 {
        assert_eq!(world.query(&handlers, ben, ann).await, "offline");
        assert_eq!(world.query(&handlers, ben, eve).await, "busy");
        tell_all(&handlers).await;
    }
    let told = world.arrived_of(&realtime, &mut bens, channel).await;
    assert_eq!(statuses(&told), ["busy"], "of who hides nobody was told");
}

#[tokio::test]
async fn who_may_have_missed_a_change_is_told_how_the_others_stand_as_far_as_that_is_known() {
    let world = World::new().await;
    let people = world.people(4).await;
    let [ann, ben, eve, forgotten] = people[..] else { panic!("four") };
    world.direct_rooms([(ann, ben), (ann, eve), (ann, forgotten)].into_iter()).await;
    for user in [ben, eve] {
        world.arrive(user).await;
    }
    world.wish(eve, "invisible").await;
    tell_all(&world.handlers).await;
    let told = world.handlers.presence_for(&[ann, ben]).await.expect("an answer");
    let told = told.into_iter().map(|(to, delivery)| match delivery.event {
        EventData::PresenceChanged(changed) => (to, changed.user_id, changed.status),
        other => panic!("{other:?}"),
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    let mut expected = [(ann, ben.to_string(), "online".to_owned()), (ann, eve.to_string(), "offline".to_owned())];
    expected.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn one_whose_look_always_fails_holds_nobody_else_up() {
    let world = World::new().await;
    let people = world.people(23).await;
    let (ben, damaged, late) = (people[0], people[1], people[2]);
    world.direct_rooms(people[1..].iter().map(|user| (ben, *user))).await;
    world.damage_wish(damaged).await;
    let channel = Channel::User(ben);
    let mut bens = world.inbox(channel).await;
    for user in people[1..].iter().filter(|user| **user != late) {
        world.arrive(*user).await;
    }
    let tell = async || {
        let told = world.handlers.tell_presence().await;
        world.clock.shift(LOOK_WITHIN.as_millis() as i64);
        told.map(|told| told.told).ok()
    };
    assert_eq!(tell().await, None, "of all together");
    assert_eq!(tell().await, Some(20));
    world.arrive(late).await;
    assert_eq!(tell().await, Some(1));
    assert_eq!(tell().await, None, "nobody else is due");
    assert_eq!(statuses(&world.arrived(&mut bens, channel).await), ["online"; 21], "of each once");
}

/// What a crowd costs: calls of commands on the server, slices, deliveries.
async fn crowd(count: usize) -> (BTreeMap<String, u64>, usize, usize) {
    let redis = RedisServer::start().await;
    let world = World::over(RealtimeSettings::Redis { url: redis.url() }).await;
    let people = world.people(count).await;
    let neighbours = people.iter().copied().zip(people.iter().copied().skip(1));
    world.direct_rooms(neighbours).await;
    let loners = world.people(200).await;
    let channels: Vec<Channel> = people.iter().map(|user| Channel::User(*user)).collect();
    let inbox = world.realtime.inbox();
    world.realtime.subscribe(&inbox.id(), &channels).await.expect("subscribed");
    redis.command("CONFIG RESETSTAT").await.expect("an answer");
    for user in people.iter().chain(&loners) {
        world.arrive(*user).await;
    }
    let (told, slices) = tell_all(&world.handlers).await;
    assert_eq!((told.looked, told.told), (count + loners.len(), count + loners.len()));
    let stats = redis.command("INFO commandstats").await.expect("an answer");
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    (calls.collect(), slices, told.deliveries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_at_once_costs_as_many_small_steps_as_there_are_people() {
    for count in [500, 2000] {
        let (calls, slices, deliveries) = crowd(count).await;
        assert_eq!(deliveries, 2 * (count - 1), "each neighbour of each, and nobody for the loners");
        assert_eq!(calls["publish"] as usize, deliveries);
        // Arrivals one by one; to tell, three scripts and one look at who listens for each slice.
        assert!(slices <= (count + 200) / 250 + 1, "{slices} slices");
        assert!(calls["evalsha"] as usize <= count + 200 + 3 * slices + 4, "{calls:?}");
        assert!(calls["pubsub|numsub"] as usize <= 2 * slices, "{calls:?}");
        // Whatever the server did at all, inside of scripts too, grows with the people and not faster.
        let all: u64 = calls.values().sum();
        assert!(all as usize <= 40 * (count + 200), "{all} commands for {count} people");
    }
}
