//! Importing: all or nothing, repeatable, fast.

use std::time::{Duration, Instant};

use domain::room::{Role, RoomKind};
use domain::{Rev, RoomId, Timestamp, UserId};
use protocol::EventData;
use store::{ImportCounts, ImportRoom, ImportUser, StoreError};

use crate::bench::{Bench, NOW, new_user, on_both};

on_both!(
    importing_again_changes_nothing,
    an_imported_room_is_a_room_like_any_other,
    an_import_that_is_dropped_leaves_no_trace,
    an_unknown_member_stops_the_import,
    an_address_of_another_account_stops_the_import,
    a_room_that_changed_since_is_left_alone,
    a_hundred_thousand_lines_take_less_than_ten_seconds,
);

fn user(number: u64) -> ImportUser {
    ImportUser {
        id: UserId::seeded("t", number),
        email: number.is_multiple_of(2).then(|| format!("t{number}@example.com")),
        password_hash: None,
        first_name: "T".to_owned(),
        last_name: number.to_string(),
    }
}

fn room(number: u64, members: impl Iterator<Item = u64>) -> ImportRoom {
    ImportRoom {
        id: RoomId::seeded("t", number),
        kind: RoomKind::Group,
        title: Some(format!("Room {number}")),
        members: members.map(|number| UserId::seeded("t", number)).collect(),
    }
}

async fn import(bench: &Bench, users: &[ImportUser], rooms: &[ImportRoom]) -> Result<ImportCounts, StoreError> {
    let mut tx = bench.store.begin_import(NOW).await?;
    tx.users(users).await?;
    tx.rooms(rooms).await?;
    tx.commit().await
}

async fn importing_again_changes_nothing(bench: Bench) {
    let users: Vec<_> = (0..30).map(user).collect();
    let rooms: Vec<_> = (0..5).map(|number| room(number, number..number + 4)).collect();
    assert_eq!(import(&bench, &users, &rooms).await, Ok(ImportCounts { users: 30, rooms: 5 }));
    assert_eq!(import(&bench, &users, &rooms).await, Ok(ImportCounts { users: 0, rooms: 0 }));
    let more: Vec<_> = (0..32).map(user).chain([user(31)]).collect();
    let rooms: Vec<_> = rooms.into_iter().chain([room(9, 0..2), room(9, 0..3)]).collect();
    assert_eq!(import(&bench, &more, &rooms).await, Ok(ImportCounts { users: 2, rooms: 1 }));
    assert_eq!(bench.store.members(RoomId::seeded("t", 9), None, 10).await.expect("reads").len(), 2);
}

async fn an_imported_room_is_a_room_like_any_other(bench: Bench) {
    let users: Vec<_> = (0..3).map(user).collect();
    // Named twice is a member once.
    let line = room(1, [1, 0, 2, 1].into_iter());
    import(&bench, &users, std::slice::from_ref(&line)).await.expect("imports");
    let stored = bench.room(line.id).await;
    assert_eq!((stored.rev, stored.epoch, stored.created_by), (Rev(1), Rev(1), users[1].id));
    assert_eq!(stored.title.as_deref(), Some("Room 1"));
    let changes = bench.store.after_rev(line.id, Rev::ZERO, 10).await.expect("reads");
    let EventData::RoomCreated(created) = &changes[0].event else { panic!("its creation") };
    assert_eq!((created.members.len(), created.rev, created.r#type.as_str()), (3, 1, "group"));
    assert_eq!(bench.store.standing(line.id, users[1].id).await.expect("reads").expect("owner").role, Role::Owner);
    assert_eq!(bench.store.standing(line.id, users[2].id).await.expect("reads").expect("member").role, Role::Member);
    bench.say(line.id, users[1].id, &["hello"]).await;
    let account = bench.store.account(users[0].id).await.expect("reads").expect("is there");
    assert_eq!((account.blocked, account.tokens_valid_after), (false, Timestamp(0)));
}

async fn an_import_that_is_dropped_leaves_no_trace(bench: Bench) {
    let mut tx = bench.store.begin_import(NOW).await.expect("begins");
    tx.users(&[user(1)]).await.expect("adds");
    drop(tx);
    bench.user().await;
    assert_eq!(bench.store.user(user(1).id).await, Ok(None));
}

async fn an_unknown_member_stops_the_import(bench: Bench) {
    let refused = import(&bench, &[user(1)], &[room(1, 1..3)]).await;
    assert_eq!(refused, Err(StoreError::Conflict("memberIds")));
    assert_eq!(bench.store.user(user(1).id).await, Ok(None), "nothing was applied");
    let mut tx = bench.store.begin_import(NOW).await.expect("begins");
    tx.users(&[user(1)]).await.expect("adds");
    let unknown = tx.unknown_users(&[user(7).id, user(1).id]).await;
    assert_eq!(unknown, Ok(vec![user(7).id]));
}

async fn an_address_of_another_account_stops_the_import(bench: Bench) {
    bench.store.create_user(&new_user(UserId::generate(), "t2@example.com")).await.expect("made");
    assert_eq!(import(&bench, &[user(1), user(2)], &[]).await, Err(StoreError::Conflict("email")));
    assert_eq!(bench.store.user(user(1).id).await, Ok(None));
}

async fn a_room_that_changed_since_is_left_alone(bench: Bench) {
    let users: Vec<_> = (0..3).map(user).collect();
    let line = room(1, 0..3);
    import(&bench, &users, std::slice::from_ref(&line)).await.expect("imports");
    let batch = bench.begin(line.id, &[]).await;
    let left = vec![(line.id, users[2].id)];
    batch.commit(store::Writes { left, ..Default::default() }).await.expect("commits");
    import(&bench, &users, std::slice::from_ref(&line)).await.expect("imports again");
    assert_eq!(bench.store.standing(line.id, users[2].id).await, Ok(None), "who was removed stays away");
}

async fn a_hundred_thousand_lines_take_less_than_ten_seconds(bench: Bench) {
    let users: Vec<_> = (0..90_000).map(user).collect();
    let rooms: Vec<_> = (0..10_000).map(|number| room(number, number * 8..number * 8 + 5)).collect();
    let began = Instant::now();
    assert_eq!(import(&bench, &users, &rooms).await, Ok(ImportCounts { users: 90_000, rooms: 10_000 }));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}
