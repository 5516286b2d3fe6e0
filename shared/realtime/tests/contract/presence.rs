//! Who is there.

use std::time::Duration;

use domain::presence::Status;
use domain::{SessionId, Timestamp, UserId};
use realtime::{DeviceLease, Wish};
use rstest::rstest;
use uuid::Uuid;

use super::world::{Kind, World, at, device};

/// The session that held the device until then.
async fn arrive(world: &World, lease: &DeviceLease, now: Timestamp) -> Option<SessionId> {
    world.realtime.arrive(lease, now).await.expect("an answer")
}

async fn depart(world: &World, lease: &DeviceLease, now: Timestamp) {
    world.realtime.depart(lease, now).await.expect("done");
}

/// Who is to be looked at because of what changed; they were looked at by then.
async fn due(world: &World, now: Timestamp) -> Vec<UserId> {
    let looks = world.realtime.due_presence(500, now).await.expect("an answer").looks;
    world.realtime.looked(&looks, now).await.expect("done");
    looks.iter().map(|look| look.presence.user).collect()
}

/// What the others are shown of somebody at some time.
async fn shown(world: &World, user: UserId, now: Timestamp) -> (Status, Option<Timestamp>) {
    let found = world.realtime.presence(&[user], now).await.expect("an answer");
    let [presence] = found[..] else { panic!("one answer for one user") };
    assert_eq!(presence.user, user);
    (presence.shown().status, presence.shown().last_seen)
}

/// Sets what somebody wishes.
async fn wish(world: &World, user: UserId, status: Status, now: Timestamp) {
    world.realtime.set_wishes(&[Wish { user, status }], now).await.expect("done");
}

async fn sessions(world: &World, user: UserId) -> Vec<DeviceLease> {
    let mut sessions = world.realtime.sessions_of(user).await.expect("an answer");
    sessions.sort_by(|one, other| one.device.cmp(&other.device));
    sessions
}

#[rstest]
#[tokio::test]
async fn a_user_is_online_from_the_first_device_to_the_last(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (user, one, other) = (UserId::generate(), Uuid::now_v7(), Uuid::now_v7());
    let (phone, laptop) = (device(user, "a-phone", one), device(user, "b-laptop", other));
    assert_eq!(shown(&world, user, at(0)).await, (Status::Offline, None));
    wish(&world, user, Status::Online, at(0)).await;
    arrive(&world, &phone, at(0)).await;
    assert_eq!(due(&world, at(0)).await, [user]);
    for _ in 0..2 {
        assert_eq!(arrive(&world, &laptop, at(1)).await, None, "a repeat is harmless");
        assert_eq!(due(&world, at(2)).await, [], "it was there");
    }
    assert_eq!(sessions(&world, user).await, [phone.clone(), laptop.clone()]);
    assert_eq!(shown(&world, user, at(1)).await, (Status::Online, None));
    depart(&world, &phone, at(2)).await;
    assert_eq!(sessions(&world, user).await, std::slice::from_ref(&laptop));
    assert_eq!(due(&world, at(2)).await, [], "it is still there");
    depart(&world, &laptop, at(3)).await;
    assert_eq!(sessions(&world, user).await, []);
    assert_eq!(shown(&world, user, at(3)).await, (Status::Offline, Some(at(3))));
    assert_eq!(due(&world, at(3)).await, [user]);
    arrive(&world, &phone, at(4)).await;
    assert_eq!(due(&world, at(4)).await, [user]);
}

#[rstest]
#[tokio::test]
async fn of_sessions_that_take_a_device_at_once_the_newest_holds_it_and_each_other_one_is_named_once(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let leases: Vec<DeviceLease> = (0..20).map(|_| device(user, "phone", Uuid::now_v7())).collect();
    let arrivals = leases.iter().map(|lease| world.realtime.arrive(lease, at(0)));
    let arrived = futures_util::future::join_all(arrivals).await;
    let others = arrived.into_iter().map(|other| other.expect("an answer"));
    let older = |(lease, other): (&DeviceLease, Option<SessionId>)| other.map(|other| other.min(lease.session));
    let mut sent_away: Vec<_> = leases.iter().zip(others).filter_map(older).collect();
    sent_away.sort_unstable();
    let all: Vec<_> = leases.iter().map(|lease| lease.session).collect();
    assert_eq!(sent_away, all[..all.len() - 1], "all but the newest, each once");
    let holder = sessions(&world, user).await.remove(0);
    assert_eq!(Some(&holder), leases.last());
    assert_eq!(arrive(&world, &holder, at(1)).await, None);
}

#[rstest]
#[tokio::test]
async fn the_newer_session_holds_the_device_whichever_arrives_first_and_wherever(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let (mut older, mut newer) = (device(user, "phone", Uuid::now_v7()), device(user, "phone", Uuid::now_v7()));
    older.session = world.realtime.new_session(at(0)).await.expect("an id");
    newer.session = world.realtime.new_session(at(0)).await.expect("an id");
    assert_eq!(arrive(&world, &newer, at(0)).await, None);
    assert_eq!(arrive(&world, &older, at(1)).await, Some(newer.session));
    assert_eq!(sessions(&world, user).await, std::slice::from_ref(&newer));
    depart(&world, &older, at(2)).await;
    wish(&world, user, Status::Online, at(2)).await;
    assert_eq!(shown(&world, user, at(2)).await.0, Status::Online);
}

#[rstest]
#[tokio::test]
async fn ids_of_sessions_grow_whoever_asks_and_whatever_its_clock_says(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let mut last = world.realtime.new_session(at(1)).await.expect("an id");
    for now in [at(0), at(1), at(0)] {
        for _ in 0..100 {
            let next = world.realtime.new_session(now).await.expect("an id");
            assert!(next > last, "{last} {next}");
            last = next;
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_replaced_session_does_not_remove_its_successor(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let (before, after) = (device(user, "phone", Uuid::now_v7()), device(user, "phone", Uuid::now_v7()));
    arrive(&world, &before, at(0)).await;
    assert_eq!(arrive(&world, &after, at(1)).await, Some(before.session));
    depart(&world, &before, at(2)).await;
    assert_eq!(sessions(&world, user).await, std::slice::from_ref(&after));
    wish(&world, user, Status::Online, at(2)).await;
    assert_eq!(shown(&world, user, at(2)).await.0, Status::Online);
    depart(&world, &after, at(3)).await;
    assert_eq!(shown(&world, user, at(3)).await.0, Status::Offline);
}

#[rstest]
#[tokio::test]
async fn a_status_shows_while_online_and_outlives_a_break(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let phone = device(user, "phone", Uuid::now_v7());
    arrive(&world, &phone, at(0)).await;
    for status in [Status::Away, Status::Busy, Status::Invisible, Status::Online, Status::Busy] {
        wish(&world, user, status, at(1)).await;
        assert_eq!(shown(&world, user, at(1)).await.0, status.as_seen_by_others());
    }
    depart(&world, &phone, at(2)).await;
    assert_eq!(shown(&world, user, at(2)).await.0, Status::Offline);
    arrive(&world, &phone, at(3)).await;
    assert_eq!(shown(&world, user, at(3)).await.0, Status::Busy);
}

#[rstest]
#[tokio::test]
async fn whoever_hides_was_last_seen_when_hiding(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let (user, gateway) = (UserId::generate(), Uuid::now_v7());
    let phone = device(user, "phone", gateway);
    arrive(&world, &phone, at(0)).await;
    wish(&world, user, Status::Online, at(0)).await;
    wish(&world, user, Status::Invisible, at(10)).await;
    wish(&world, user, Status::Invisible, at(20)).await;
    world.realtime.renew_gateway(gateway, &[user], at(30)).await.expect("done");
    assert_eq!(shown(&world, user, at(30)).await, (Status::Offline, Some(at(10))));
    depart(&world, &phone, at(40)).await;
    assert_eq!(shown(&world, user, at(40)).await, (Status::Offline, Some(at(10))));
    arrive(&world, &phone, at(50)).await;
    assert_eq!(shown(&world, user, at(50)).await, (Status::Offline, Some(at(10))));
    wish(&world, user, Status::Online, at(60)).await;
    assert_eq!(shown(&world, user, at(60)).await, (Status::Online, None));
}

#[rstest]
#[tokio::test]
async fn nobody_is_shown_before_the_wish_is_known_and_a_wish_that_is_known_is_not_learnt_again(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let phone = device(user, "phone", Uuid::now_v7());
    arrive(&world, &phone, at(0)).await;
    assert_eq!(world.realtime.presence(&[user], at(0)).await.expect("an answer")[0].wish, None);
    assert_eq!(shown(&world, user, at(0)).await, (Status::Offline, None));
    for status in [Status::Busy, Status::Invisible] {
        world.realtime.learn_wishes(&[Wish { user, status }], at(1)).await.expect("done");
        assert_eq!(shown(&world, user, at(1)).await, (Status::Busy, None));
    }
}

#[rstest]
#[tokio::test]
async fn within_the_grace_the_others_do_not_notice_that_the_last_device_left(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::with_grace(kind, Duration::from_secs(15)).await;
    let user = UserId::generate();
    let phone = device(user, "phone", Uuid::now_v7());
    arrive(&world, &phone, at(0)).await;
    wish(&world, user, Status::Busy, at(0)).await;
    depart(&world, &phone, at(10)).await;
    assert_eq!(sessions(&world, user).await, []);
    assert_eq!(shown(&world, user, at(24)).await, (Status::Busy, None));
    assert_eq!(shown(&world, user, at(25)).await, (Status::Offline, Some(at(10))), "when the device left");
    arrive(&world, &phone, at(30)).await;
    depart(&world, &phone, at(31)).await;
    wish(&world, user, Status::Invisible, at(32)).await;
    assert_eq!(shown(&world, user, at(33)).await, (Status::Offline, Some(at(31))), "hiding knows no grace");
    arrive(&world, &phone, at(40)).await;
    depart(&world, &phone, at(41)).await;
    wish(&world, user, Status::Online, at(42)).await;
    assert_eq!(shown(&world, user, at(43)).await, (Status::Offline, Some(at(31))), "the hidden go unseen");
}

#[rstest]
#[tokio::test]
async fn somebody_is_idle_while_no_connected_device_is_in_use(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::with_grace(kind, Duration::from_secs(15)).await;
    let (user, one, other) = (UserId::generate(), Uuid::now_v7(), Uuid::now_v7());
    let (phone, laptop) = (device(user, "phone", one), device(user, "laptop", other));
    let rest = async |lease: &DeviceLease, is_idle| {
        world.realtime.set_idle(std::slice::from_ref(lease), is_idle, at(1)).await.expect("done");
        shown(&world, user, at(1)).await.0
    };
    wish(&world, user, Status::Online, at(0)).await;
    arrive(&world, &phone, at(0)).await;
    assert_eq!(rest(&phone, true).await, Status::Away);
    arrive(&world, &laptop, at(1)).await;
    assert_eq!(shown(&world, user, at(1)).await.0, Status::Online, "a new device is in use");
    assert_eq!(rest(&laptop, true).await, Status::Away);
    assert_eq!(rest(&phone, false).await, Status::Online);
    depart(&world, &phone, at(2)).await;
    assert_eq!(shown(&world, user, at(2)).await.0, Status::Away, "the one that is left is idle");
    assert_eq!(rest(&phone, false).await, Status::Away, "it has left");
    wish(&world, user, Status::Busy, at(2)).await;
    assert_eq!(shown(&world, user, at(2)).await.0, Status::Busy);
    wish(&world, user, Status::Online, at(2)).await;
    depart(&world, &laptop, at(3)).await;
    assert_eq!(shown(&world, user, at(4)).await.0, Status::Away, "within the grace nothing changes");
    arrive(&world, &laptop, at(5)).await;
    assert_eq!(shown(&world, user, at(5)).await.0, Status::Online);
}

#[rstest]
#[tokio::test]
async fn many_are_looked_up_in_the_order_asked(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let users: Vec<UserId> = (0..1201).map(|_| UserId::generate()).collect();
    for user in users.iter().step_by(100) {
        arrive(&world, &device(*user, "phone", Uuid::now_v7()), at(0)).await;
    }
    let found = world.realtime.presence(&users, at(0)).await.expect("an answer");
    for (number, (user, presence)) in users.iter().zip(&found).enumerate() {
        assert_eq!((presence.user, presence.is_there), (*user, number % 100 == 0));
    }
    assert_eq!(found.len(), users.len());
}

#[rstest]
#[tokio::test]
async fn a_renewal_keeps_users_online_but_does_not_bring_back_who_just_left(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let gateway = Uuid::now_v7();
    let users: Vec<UserId> = (0..3).map(|_| UserId::generate()).collect();
    let devices: Vec<DeviceLease> = users.iter().map(|user| device(*user, "phone", gateway)).collect();
    arrive(&world, &devices[0], at(0)).await;
    arrive(&world, &devices[1], at(0)).await;
    depart(&world, &devices[1], at(19)).await;
    world.realtime.renew_gateway(gateway, &users, at(20)).await.expect("done");
    for user in &users {
        wish(&world, *user, Status::Online, at(20)).await;
    }
    assert_eq!(shown(&world, users[0], at(20)).await, (Status::Online, None));
    assert_eq!(shown(&world, users[1], at(20)).await, (Status::Offline, Some(at(19))));
    assert_eq!(shown(&world, users[2], at(20)).await.0, Status::Online, "known to the gateway, forgotten here");
    world.realtime.renew_gateway(gateway, &[], at(40)).await.expect("done");
}

#[rstest]
#[tokio::test]
async fn redis_keys_are_those_of_the_contract(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    let phone = device(user, "phone", Uuid::now_v7());
    arrive(&world, &phone, at(7)).await;
    let socket = world.about_people(&format!("socket:{user}"));
    let holder = world.ask(&format!("HGET {socket} phone")).await;
    assert!(holder.contains(&format!("{}@{}", phone.session, phone.gateway)), "{holder}");
    assert!((86_390..=86_400).contains(&world.ask_number(&format!("TTL {socket}")).await));
    let score = world.ask(&format!("ZSCORE {} {user}", world.about_people("online:users"))).await;
    assert!(score.contains(&at(7).0.to_string()), "{score}");
    let lease = world.about_people(&format!("gateway:{}", phone.gateway));
    assert!((50..=60).contains(&world.ask_number(&format!("TTL {lease}")).await));
}

#[rstest]
#[tokio::test]
async fn devices_of_a_gateway_that_died_do_not_count(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let (user, dead, living) = (UserId::generate(), Uuid::now_v7(), Uuid::now_v7());
    let (lost, phone) = (device(user, "lost", dead), device(user, "phone", living));
    arrive(&world, &lost, at(0)).await;
    world.ask(&format!("DEL {}", world.about_people(&format!("gateway:{dead}")))).await;
    assert_eq!(sessions(&world, user).await, []);
    assert_eq!(due(&world, at(0)).await, [user]);
    arrive(&world, &phone, at(60)).await;
    assert_eq!(due(&world, at(60)).await, [user], "nobody was there any more");
    assert_eq!(sessions(&world, user).await, std::slice::from_ref(&phone));
    depart(&world, &phone, at(61)).await;
    assert_eq!(due(&world, at(61)).await, [user]);
}

#[rstest]
#[tokio::test]
async fn after_a_wipe_leaving_and_arriving_still_come_out_right(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let (user, gateway) = (UserId::generate(), Uuid::now_v7());
    let (phone, laptop) = (device(user, "phone", gateway), device(user, "laptop", gateway));
    arrive(&world, &phone, at(0)).await;
    arrive(&world, &laptop, at(0)).await;
    world.ask_all("FLUSHALL").await;
    assert_eq!(shown(&world, user, at(1)).await, (Status::Offline, None));
    arrive(&world, &phone, at(1)).await;
    assert_eq!(due(&world, at(1)).await, [user], "it came, as far as is known");
    depart(&world, &laptop, at(2)).await;
    assert_eq!(due(&world, at(2)).await, [], "the phone is there");
    assert_eq!(sessions(&world, user).await, std::slice::from_ref(&phone));
    world.ask_all("FLUSHALL").await;
    depart(&world, &phone, at(3)).await;
    assert_eq!(due(&world, at(3)).await, [user]);
    world.realtime.learn_wishes(&[Wish { user, status: Status::Online }], at(4)).await.expect("done");
    assert_eq!(shown(&world, user, at(4)).await, (Status::Offline, Some(at(3))));
}
