//! Who is due to be looked at because something changed.

use std::collections::HashSet;
use std::time::Duration;

use domain::presence::Status;
use domain::{Timestamp, UserId};
use protocol::Channel;
use realtime::{Due, LOOK_WITHIN, Look, Shown, Wish};
use rstest::rstest;
use testkit::{PATIENCE, until};
use uuid::Uuid;

use super::world::{Kind, World, at, device};

const GRACE: Duration = Duration::from_secs(15);
const ONLINE: Shown = Shown { status: Status::Online, last_seen: None };

impl World {
    async fn take(&self, now: Timestamp) -> Due {
        self.realtime.due_presence(500, now).await.expect("an answer")
    }

    async fn put_back(&self, looks: &[Look], now: Timestamp) {
        self.realtime.looked(looks, now).await.expect("done");
    }

    /// What the others are told of `user` at some time, if it is looked at then and anything is new.
    async fn news(&self, user: UserId, now: Timestamp) -> Option<Shown> {
        let looks = self.take(now).await.looks;
        let looks: Vec<Look> = looks.into_iter().map(|look| look.wishing(Status::Online)).collect();
        let wishes: Vec<Wish> =
            looks.iter().map(|look| Wish { user: look.presence.user, status: Status::Online }).collect();
        self.realtime.learn_wishes(&wishes, now).await.expect("done");
        self.put_back(&looks, now).await;
        looks.iter().find(|look| look.presence.user == user)?.news()
    }

    async fn wishes(&self, user: UserId, status: Status, now: Timestamp) {
        self.realtime.set_wishes(&[Wish { user, status }], now).await.expect("done");
    }
}

fn gone(at: Timestamp) -> Shown {
    Shown { status: Status::Offline, last_seen: Some(at) }
}

#[rstest]
#[tokio::test]
async fn a_change_is_told_once_and_not_more_than_once_a_second(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let phone = device(user, "phone", Uuid::now_v7());
    assert_eq!(world.take(at(0)).await, Due::default());
    world.realtime.arrive(&phone, at(0)).await.expect("done");
    assert_eq!(world.news(user, at(0)).await, Some(ONLINE));
    assert_eq!(world.take(at(60)).await, Due::default());
    for status in [Status::Away, Status::Busy, Status::Away, Status::Busy] {
        world.wishes(user, status, at(60)).await;
    }
    let due = world.take(at(60)).await;
    assert_eq!((due.waiting, due.looks.len(), due.looks[0].changes), (1, 1, 4));
    assert_eq!(due.looks[0].news().map(|shown| shown.status), Some(Status::Busy));
    world.put_back(&due.looks, at(60)).await;
    // The next change within the second waits for its end.
    world.wishes(user, Status::Away, at(60)).await;
    let almost = Timestamp(at(61).0 - 1);
    assert_eq!(world.take(almost).await.looks, []);
    assert_eq!(world.news(user, at(61)).await.map(|shown| shown.status), Some(Status::Away));
    // What was undone in time is looked at and not told.
    world.wishes(user, Status::Busy, at(70)).await;
    world.wishes(user, Status::Away, at(70)).await;
    let due = world.take(at(70)).await;
    assert_eq!((due.looks.len(), due.looks[0].news()), (1, None));
}

#[rstest]
#[tokio::test]
async fn each_is_taken_by_one_of_many_and_by_another_when_that_one_dies(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let users: HashSet<UserId> = (0..700).map(|_| UserId::generate()).collect();
    for user in &users {
        world.realtime.arrive(&device(*user, "phone", Uuid::now_v7()), at(0)).await.expect("done");
    }
    let takes = (0..10).map(|_| world.realtime.due_presence(100, at(0)));
    let taken = futures_util::future::join_all(takes).await;
    let taken: Vec<Look> = taken.into_iter().flat_map(|due| due.expect("an answer").looks).collect();
    let distinct: HashSet<UserId> = taken.iter().map(|look| look.presence.user).collect();
    assert_eq!((taken.len(), distinct), (users.len(), users.clone()));
    // Half is done; whoever had the other half has died.
    world.put_back(&taken[..350], at(1)).await;
    assert_eq!(world.take(Timestamp(at(0).plus(LOOK_WITHIN).0 - 1)).await.looks, []);
    let again = world.take(at(0).plus(LOOK_WITHIN)).await.looks;
    let lost: HashSet<UserId> = taken[350..].iter().map(|look| look.presence.user).collect();
    assert_eq!(again.iter().map(|look| look.presence.user).collect::<HashSet<_>>(), lost);
    // Who comes too late changes nothing.
    world.put_back(&taken[350..], at(6)).await;
    world.put_back(&again[..1], at(6)).await;
    assert_eq!(world.take(at(100)).await.waiting, 349);
}

#[rstest]
#[tokio::test]
async fn what_was_told_by_one_that_died_is_taken_back(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (user, hidden) = (UserId::generate(), UserId::generate());
    let phone = device(user, "phone", Uuid::now_v7());
    world.wishes(user, Status::Online, at(0)).await;
    world.wishes(hidden, Status::Invisible, at(0)).await;
    world.realtime.arrive(&phone, at(0)).await.expect("done");
    world.realtime.arrive(&device(hidden, "phone", Uuid::now_v7()), at(0)).await.expect("done");
    // Perhaps this one told that the user came, before it died.
    assert_eq!(world.take(at(0)).await.looks.len(), 2);
    world.realtime.depart(&phone, at(1)).await.expect("done");
    let looks = world.take(at(5)).await.looks;
    let news = |user| looks.iter().find(|look| look.presence.user == user).expect("is due").news();
    assert_eq!((news(user), news(hidden)), (Some(gone(at(1))), None));
}

#[rstest]
#[tokio::test]
async fn what_changes_during_a_look_is_looked_at_after_it(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let phone = device(user, "phone", Uuid::now_v7());
    world.realtime.arrive(&phone, at(0)).await.expect("done");
    world.wishes(user, Status::Online, at(0)).await;
    let looks = world.take(at(0)).await.looks;
    world.realtime.depart(&phone, at(1)).await.expect("done");
    assert_eq!(world.take(at(1)).await.looks, [], "in one pair of hands");
    world.put_back(&looks, at(1)).await;
    assert_eq!(world.take(Timestamp(at(2).0 - 1)).await.looks, []);
    assert_eq!(world.news(user, at(2)).await, Some(gone(at(1))));
    assert_eq!(world.take(at(100)).await.waiting, 0);
}

#[rstest]
#[tokio::test]
async fn whoever_is_back_within_the_grace_was_never_gone(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::with_grace(kind, GRACE).await;
    let user = UserId::generate();
    let (one, other) = (device(user, "phone", Uuid::now_v7()), device(user, "phone", Uuid::now_v7()));
    world.realtime.arrive(&one, at(0)).await.expect("done");
    assert_eq!(world.news(user, at(0)).await, Some(ONLINE));
    world.realtime.depart(&one, at(10)).await.expect("done");
    assert_eq!(world.news(user, at(24)).await, None);
    world.realtime.arrive(&other, at(24)).await.expect("done");
    assert_eq!(world.news(user, at(24)).await, None);
    assert_eq!(world.news(user, at(60)).await, None);
    world.realtime.depart(&other, at(70)).await.expect("done");
    assert_eq!(world.news(user, at(84)).await, None);
    assert_eq!(world.news(user, at(85)).await, Some(gone(at(70))), "last seen when the device left");
    assert_eq!(world.take(at(200)).await, Due::default());
}

#[rstest]
#[case::who_came_first_leaves_first([0, 1])]
#[case::who_came_last_leaves_first([1, 0])]
#[tokio::test]
async fn devices_on_several_gateways_are_one_presence(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
    #[case] leaving: [usize; 2],
) {
    let world = World::with_grace(kind, GRACE).await;
    let user = UserId::generate();
    let devices = [device(user, "phone", Uuid::now_v7()), device(user, "laptop", Uuid::now_v7())];
    world.realtime.arrive(&devices[0], at(0)).await.expect("done");
    assert_eq!(world.news(user, at(0)).await, Some(ONLINE));
    world.realtime.arrive(&devices[1], at(5)).await.expect("done");
    world.realtime.depart(&devices[leaving[0]], at(10)).await.expect("done");
    assert_eq!(world.take(at(60)).await, Due::default(), "nobody is to be looked at");
    world.realtime.depart(&devices[leaving[1]], at(60)).await.expect("done");
    assert_eq!(world.news(user, at(74)).await, None);
    assert_eq!(world.news(user, at(75)).await, Some(gone(at(60))));
}

#[rstest]
#[tokio::test]
async fn of_the_hidden_nothing_is_told_but_that_they_went_when_they_hid(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::with_grace(kind, GRACE).await;
    let (user, gateway) = (UserId::generate(), Uuid::now_v7());
    let phone = device(user, "phone", gateway);
    world.realtime.arrive(&phone, at(0)).await.expect("done");
    assert_eq!(world.news(user, at(0)).await, Some(ONLINE));
    world.wishes(user, Status::Invisible, at(10)).await;
    assert_eq!(world.news(user, at(10)).await, Some(gone(at(10))), "at once");
    for second in [20, 40] {
        world.realtime.depart(&phone, at(second)).await.expect("done");
        assert_eq!(world.news(user, at(second + 5)).await, None);
        world.realtime.arrive(&phone, at(second + 6)).await.expect("done");
        world.realtime.renew_gateway(gateway, &[user], at(second + 7)).await.expect("done");
        world.realtime.set_idle(std::slice::from_ref(&phone), true, at(second + 8)).await.expect("done");
        assert_eq!(world.news(user, at(second + 9)).await, None);
    }
    world.wishes(user, Status::Busy, at(90)).await;
    assert_eq!(world.news(user, at(90)).await.map(|shown| shown.status), Some(Status::Busy));
}

#[rstest]
#[tokio::test]
async fn who_wished_to_hide_is_hidden_when_that_is_learnt_anew(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (stays, leaves) = (UserId::generate(), UserId::generate());
    let phone = |user| device(user, "phone", Uuid::now_v7());
    world.realtime.arrive(&phone(stays), at(0)).await.expect("done");
    // Nothing is known of this one but that it leaves: wiped before.
    world.realtime.depart(&phone(leaves), at(0)).await.expect("done");
    let looks = world.take(at(0)).await.looks;
    assert_eq!(looks.len(), 2);
    for look in looks {
        assert_eq!(look.presence.wish, None);
        assert_eq!(look.wishing(Status::Invisible).news(), None);
        let expected = if look.presence.user == stays { Some(ONLINE) } else { Some(gone(at(0))) };
        assert_eq!(look.wishing(Status::Online).news(), expected);
    }
}

#[rstest]
#[tokio::test]
async fn who_listens_is_known(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let users: Vec<UserId> = (0..1100).map(|_| UserId::generate()).collect();
    let channels: Vec<Channel> = users.iter().step_by(3).map(|user| Channel::User(*user)).collect();
    let _inbox = world.inbox(&channels).await;
    let listening = world.realtime.listening(&users).await.expect("an answer");
    assert_eq!(listening, (0..1100).map(|number| number % 3 == 0).collect::<Vec<_>>());
    assert_eq!(world.realtime.listening(&[]).await, Ok(vec![]));
}

#[rstest]
#[tokio::test]
async fn users_of_a_gateway_whose_lease_ran_out_go_offline_after_the_grace(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::with_grace(kind, GRACE).await;
    let (dead, living) = (Uuid::now_v7(), Uuid::now_v7());
    let (lost, twice, there) = (UserId::generate(), UserId::generate(), UserId::generate());
    let other = device(twice, "laptop", living);
    for lease in [&device(lost, "phone", dead), &device(twice, "phone", dead), &other, &device(there, "phone", living)]
    {
        world.realtime.arrive(lease, at(0)).await.expect("done");
    }
    world.realtime.set_idle(std::slice::from_ref(&other), true, at(0)).await.expect("done");
    assert_eq!(world.news(lost, at(0)).await, Some(ONLINE));
    // The janitor ran just now and is not due.
    world.realtime.janitor(at(1)).await.expect("done");
    assert_eq!(world.realtime.janitor(at(2)).await.expect("done").extended, 0);
    let lease = world.about_people(&format!("gateway:{dead}"));
    world.ask(&format!("PEXPIRE {lease} 200")).await;
    world.realtime.renew_gateway(living, &[twice, there], at(20)).await.expect("done");
    assert!(!world.take(at(59)).await.gateway_died, "its minute is not over");
    until(PATIENCE, || async { world.ask_number(&format!("EXISTS {lease}")).await == 0 }).await;
    assert!(world.take(at(60)).await.gateway_died);
    assert!(!world.take(at(60)).await.gateway_died, "one is told");
    let trimmed = world.realtime.janitor(at(60)).await.expect("done");
    assert_eq!((trimmed.gone, trimmed.extended), (1, 2), "out of turn");
    let looks = world.take(at(60)).await.looks;
    let [look] = looks[..] else { panic!("{looks:?}") };
    assert_eq!((look.presence.user, look.news()), (twice, Some(Shown { status: Status::Away, last_seen: None })));
    assert_eq!(world.news(lost, at(74)).await, None);
    assert_eq!(world.news(lost, at(75)).await, Some(gone(at(0))));
}
