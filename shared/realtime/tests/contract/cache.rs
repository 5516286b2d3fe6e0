//! Room sets as a cache.

use domain::{RoomId, UserId};
use rstest::rstest;

use super::world::{Kind, World};

#[rstest]
#[tokio::test]
async fn rooms_and_members_are_remembered_replaced_and_forgotten(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let (user, room) = (UserId::generate(), RoomId::generate());
    let rooms: Vec<RoomId> = (0..2500).map(|_| RoomId::generate()).collect();
    let users: Vec<UserId> = (0..3).map(|_| UserId::generate()).collect();
    let sorted_rooms = async || {
        let mut rooms = world.realtime.cached_rooms(user).await.expect("an answer")?;
        rooms.sort_unstable();
        Some(rooms)
    };
    let sorted_members = async || {
        let mut members = world.realtime.cached_members(room).await.expect("an answer")?;
        members.sort_unstable();
        Some(members)
    };
    assert_eq!((sorted_rooms().await, sorted_members().await), (None, None));
    world.realtime.cache_rooms(user, &rooms).await.expect("done");
    world.realtime.cache_members(room, &users).await.expect("done");
    assert_eq!((sorted_rooms().await, sorted_members().await), (Some(rooms.clone()), Some(users.clone())));
    world.realtime.cache_rooms(user, &rooms[..1]).await.expect("done");
    assert_eq!(sorted_rooms().await, Some(rooms[..1].to_vec()));
    world.realtime.forget_rooms(&[user, UserId::generate()]).await.expect("done");
    assert_eq!((sorted_rooms().await, sorted_members().await), (None, Some(users)));
    world.realtime.forget_members(&[room, RoomId::generate()]).await.expect("done");
    assert_eq!(sorted_members().await, None);
    world.realtime.cache_rooms(user, &[]).await.expect("done");
    assert_eq!(sorted_rooms().await, None);
}

#[rstest]
#[tokio::test]
async fn redis_keys_live_as_long_as_the_contract_says(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let (user, room) = (UserId::generate(), RoomId::generate());
    world.realtime.cache_rooms(user, &[room]).await.expect("done");
    world.realtime.cache_members(room, &[user]).await.expect("done");
    let left = async |key: String| world.ask_number(&format!("TTL {key}")).await;
    assert!((43_190..=43_200).contains(&left(format!("chat:graph:groups:{user}")).await));
    assert!((1790..=1800).contains(&left(format!("chat:room:members:{room}")).await));
}
