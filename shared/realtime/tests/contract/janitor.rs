//! The scheduled tidying-up.

use domain::UserId;
use domain::presence::Status;
use realtime::{Realtime, Trimmed, Wish};
use rstest::rstest;
use uuid::Uuid;

use super::world::{Kind, World, at, device};

#[rstest]
#[tokio::test]
async fn whoever_gave_no_sign_of_life_for_five_minutes_is_offline(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let gateway = Uuid::now_v7();
    let users: Vec<UserId> = (0..1300).map(|_| UserId::generate()).collect();
    let online: Vec<Wish> = users.iter().map(|user| Wish { user: *user, status: Status::Online }).collect();
    world.realtime.learn_wishes(&online, at(0)).await.expect("done");
    world.realtime.renew_gateway(Uuid::now_v7(), &users[..1200], at(0)).await.expect("done");
    for user in &users[1200..] {
        world.realtime.arrive(&device(*user, "phone", gateway), at(0)).await.expect("done");
    }
    world.realtime.renew_gateway(gateway, &users[1200..], at(100)).await.expect("done");
    let trimmed = world.realtime.janitor(at(301)).await.expect("done");
    assert_eq!(trimmed.gone, 1200);
    assert!(trimmed.extended >= 100, "{trimmed:?}");
    let found = world.realtime.presence(&users, at(301)).await.expect("an answer");
    for (number, presence) in found.iter().enumerate() {
        let expected = if number < 1200 { (Status::Offline, Some(at(0))) } else { (Status::Online, None) };
        let shown = presence.shown();
        assert_eq!((shown.status, shown.last_seen), expected);
    }
}

#[rstest]
#[tokio::test]
async fn of_several_janitors_one_does_the_work(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let user = UserId::generate();
    world.realtime.arrive(&device(user, "phone", Uuid::now_v7()), at(0)).await.expect("done");
    assert_eq!(world.realtime.janitor(at(290)).await, Ok(Trimmed { gone: 0, extended: 1 }));
    assert_eq!(world.realtime.janitor(at(301)).await, Ok(Trimmed::default()), "not due yet");
    assert_eq!(world.realtime.janitor(at(320)).await, Ok(Trimmed { gone: 1, extended: 0 }));
}

#[rstest]
#[tokio::test]
async fn clocks_of_processes_do_not_decide_when_the_janitor_is_due(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let realtime = Realtime::open(world.settings(), &world.tasks).await.expect("the engine opens");
    realtime.arrive(&device(UserId::generate(), "phone", Uuid::now_v7()), at(0)).await.expect("done");
    assert_eq!(realtime.janitor(at(0)).await, Ok(Trimmed { gone: 0, extended: 1 }));
    assert_eq!(realtime.janitor(at(1000)).await, Ok(Trimmed::default()), "a moment ago by Redis' clock");
}

#[rstest]
#[tokio::test]
async fn sessions_of_living_gateways_are_extended_and_those_of_dead_ones_end(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (dead, living) = (Uuid::now_v7(), Uuid::now_v7());
    let (lost, there) = (UserId::generate(), UserId::generate());
    for (user, gateway) in [(lost, dead), (there, living)] {
        world.realtime.arrive(&device(user, "phone", gateway), at(0)).await.expect("done");
        world.realtime.learn_wishes(&[Wish { user, status: Status::Online }], at(0)).await.expect("done");
        world.ask(&format!("EXPIRE {} 500", world.about_people(&format!("socket:{user}")))).await;
    }
    world.ask(&format!("DEL {}", world.about_people(&format!("gateway:{dead}")))).await;
    assert_eq!(world.realtime.janitor(at(1)).await, Ok(Trimmed { gone: 1, extended: 1 }));
    let socket = |user| world.about_people(&format!("socket:{user}"));
    assert!(world.ask_number(&format!("TTL {}", socket(there))).await > 86_000);
    assert!(world.ask_number(&format!("EXISTS {}", socket(lost))).await == 0);
    let found = world.realtime.presence(&[lost, there], at(1)).await.expect("an answer");
    let stands: Vec<_> = found.iter().map(|presence| (presence.shown().status, presence.shown().last_seen)).collect();
    assert_eq!(stands, [(Status::Offline, Some(at(0))), (Status::Online, None)]);
}
