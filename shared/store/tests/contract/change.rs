//! The version of a user's rooms, and the search for whose rights or rooms have changed.

use std::collections::HashSet;

use domain::room::{Role, RoomKind};
use domain::{Membership, RoomId, Seq, UserId};
use store::{Account, ChangeCursor, ImportRoom, ImportUser, Store, Writes};

use crate::bench::{Bench, NOW, new_group, on_both};

on_both!(
    each_change_of_a_users_rooms_makes_their_version_grow,
    several_changes_of_one_transaction_count_once,
    who_is_made_a_member_and_not_is_told_from_the_same_moment,
    an_import_moves_only_those_who_were_there_before,
    batches_and_new_rooms_of_the_same_people_never_wait_in_a_circle,
    what_changed_since_the_last_look_is_found_and_nothing_else,
    what_an_operator_changes_by_hand_is_found,
    many_changes_come_in_pages,
    a_change_that_is_committed_late_is_found,
);

async fn version(store: &Store, user: UserId) -> i64 {
    let account = store.account(user).await.expect("reads").expect("is there").membership;
    let rooms = store.membership_of(user).await.expect("reads").expect("is there");
    assert_eq!(account, rooms.account.membership);
    account.0
}

async fn write(bench: &Bench, room: RoomId, writes: Writes) {
    bench.begin(room, &[]).await.commit(writes).await.expect("commits");
}

async fn each_change_of_a_users_rooms_makes_their_version_grow(bench: Bench) {
    let [ann, ben, eve] = bench.users().await;
    assert_eq!(version(&bench.store, ann).await, 0);
    let room = bench.group(&[ann, ben]).await;
    assert_eq!((version(&bench.store, ann).await, version(&bench.store, ben).await), (1, 1));
    write(&bench, room, Writes { joined: vec![(room, eve, Role::Member, Seq::ZERO)], ..Writes::default() }).await;
    assert_eq!((version(&bench.store, ann).await, version(&bench.store, eve).await), (1, 1));
    write(&bench, room, Writes { left: vec![(room, eve)], ..Writes::default() }).await;
    assert_eq!(version(&bench.store, eve).await, 2);
    bench.say(room, ann, &["changes no membership"]).await;
    assert_eq!(version(&bench.store, ann).await, 1);
    let stranger = new_group(RoomId::generate(), &[ann, UserId::generate()]);
    bench.store.create_room(&stranger).await.expect_err("a member has no account");
    assert_eq!(version(&bench.store, ann).await, 1);
}

async fn several_changes_of_one_transaction_count_once(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let joined = vec![(room, ben, Role::Admin, Seq::ZERO)];
    write(&bench, room, Writes { left: vec![(room, ben)], joined, ..Writes::default() }).await;
    assert_eq!(version(&bench.store, ben).await, 2);
    let state = &bench.store.rooms_of(ben).await.expect("reads")[0];
    assert_eq!((state.room_id, state.role), (room, Role::Admin));
}

async fn who_is_made_a_member_and_not_is_told_from_the_same_moment(bench: Bench) {
    let ann = bench.user().await;
    let readings = async {
        loop {
            let read = bench.store.membership_of(ann).await.expect("reads").expect("is there");
            assert_eq!(read.rooms.len() as i64, read.account.membership.0, "each room made it grow by one");
            let sets = bench.store.room_sets(&[ann, UserId::generate()]).await.expect("reads");
            let (membership, rooms) = &sets[&ann];
            assert_eq!((rooms.len() as i64, sets.len()), (membership.0, 1));
            if read.rooms.len() == 20 {
                return;
            }
        }
    };
    let rooms = async {
        for _ in 0..20 {
            bench.group(&[ann]).await;
        }
    };
    tokio::join!(readings, rooms);
    assert_eq!(bench.store.membership_of(UserId::generate()).await.expect("reads"), None);
}

async fn an_import_moves_only_those_who_were_there_before(bench: Bench) {
    let ann = bench.user().await;
    let mut cursor = bench.store.change_cursor().await.expect("reads");
    let new = UserId::generate();
    let room =
        |members: Vec<UserId>| ImportRoom { id: RoomId::generate(), kind: RoomKind::Group, title: None, members };
    let user =
        ImportUser { id: new, email: None, password_hash: None, first_name: "N".to_owned(), last_name: "W".to_owned() };
    let mut import = bench.store.begin_import(NOW).await.expect("begins");
    import.users(&[user]).await.expect("adds");
    import.rooms(&[room(vec![new, ann]), room(vec![ann, new])]).await.expect("adds");
    import.commit().await.expect("commits");
    assert_eq!((version(&bench.store, ann).await, version(&bench.store, new).await), (1, 0));
    assert_eq!(found(&bench.store, &mut cursor).await, HashSet::from([ann]));
}

async fn batches_and_new_rooms_of_the_same_people_never_wait_in_a_circle(bench: Bench) {
    let users: [UserId; 6] = bench.users().await;
    let mut turned = users;
    turned.reverse();
    let rooms = [bench.group(&users).await, bench.group(&turned).await];
    let second = bench.second().await;
    let work = (0..16).map(|number| {
        let store = if number % 2 == 0 { bench.store.clone() } else { second.clone() };
        let order = if number % 3 == 0 { users } else { turned };
        let room = rooms[number % 2];
        async move {
            for _ in 0..4 {
                store.create_room(&new_group(RoomId::generate(), &order)).await.expect("made");
                let batch = crate::bench::begin(&store, room, &[]).await.expect("begins");
                let left = order.iter().map(|user| (room, *user)).collect();
                let joined = order.iter().map(|user| (room, *user, Role::Member, Seq::ZERO)).collect();
                batch.commit(Writes { left, joined, ..Writes::default() }).await.expect("commits");
            }
        }
    });
    futures_util::future::join_all(work).await;
    assert_eq!(version(&bench.store, users[0]).await, 2 + 16 * 4 * 2);
}

async fn changes(store: &Store, cursor: &mut ChangeCursor) -> Vec<Account> {
    store.changed_accounts(cursor, 100).await.expect("reads")
}

async fn found(store: &Store, cursor: &mut ChangeCursor) -> HashSet<UserId> {
    changes(store, cursor).await.into_iter().map(|account| account.id).collect()
}

async fn what_changed_since_the_last_look_is_found_and_nothing_else(bench: Bench) {
    let [ann, ben, eve, joe] = bench.users().await;
    let mut cursor = bench.store.change_cursor().await.expect("reads");
    assert_eq!(found(&bench.store, &mut cursor).await, HashSet::new());
    bench.store.void_tokens(ann, NOW).await.expect("voids");
    bench.store.set_blocked(ben, true, NOW).await.expect("blocks");
    bench.group(&[eve]).await;
    let mut accounts = changes(&bench.store, &mut cursor).await;
    accounts.sort_unstable_by_key(|account| account.id);
    let account = |id, blocked, tokens_valid_after, membership| Account {
        id,
        blocked,
        tokens_valid_after,
        membership,
        is_admin: false,
    };
    let mut expected = [
        account(ann, false, NOW, Membership(0)),
        account(ben, true, NOW, Membership(0)),
        account(eve, false, domain::Timestamp(0), Membership(1)),
    ];
    expected.sort_unstable_by_key(|account| account.id);
    assert_eq!(accounts, expected);
    // Who was found before may be found once more: somewhere a transaction is under way.
    bench.store.set_blocked(joe, false, NOW).await.expect("unblocks");
    let again = found(&bench.store, &mut cursor).await;
    assert!(again.contains(&joe) && again.is_subset(&HashSet::from([ann, ben, eve, joe])), "{again:?}");
    bench.store.set_blocked(ben, false, NOW).await.expect("unblocks");
    let mut accounts = bench.store.accounts(&[ann, ben, UserId::generate()]).await.expect("reads");
    accounts.sort_unstable_by_key(|account| account.id);
    assert_eq!(
        accounts.iter().map(|account| (account.id, account.blocked)).collect::<Vec<_>>(),
        [(ann, false), (ben, false)]
    );
}

async fn what_an_operator_changes_by_hand_is_found(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let mut cursor = bench.store.change_cursor().await.expect("reads");
    bench.execute("UPDATE users SET first_name = 'Other'").await;
    assert_eq!(found(&bench.store, &mut cursor).await, HashSet::new());
    bench.execute("UPDATE users SET blocked_at = 1").await;
    assert_eq!(found(&bench.store, &mut cursor).await, HashSet::from([ann, ben]));
}

async fn many_changes_come_in_pages(bench: Bench) {
    let users: [UserId; 7] = bench.users().await;
    let mut cursor = bench.store.change_cursor().await.expect("reads");
    // All of one transaction, then one by one.
    bench.execute("UPDATE users SET tokens_valid_after = 1").await;
    bench.store.void_tokens(users[3], NOW).await.expect("voids");
    let mut pages = Vec::new();
    let mut seen = HashSet::new();
    loop {
        let page = bench.store.changed_accounts(&mut cursor, 3).await.expect("reads");
        seen.extend(page.iter().map(|account| account.id));
        pages.push(page.len());
        if page.len() < 3 {
            break;
        }
    }
    assert_eq!((seen, pages), (HashSet::from(users), vec![3, 3, 1]));
}

async fn a_change_that_is_committed_late_is_found(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let mut cursor = bench.store.change_cursor().await.expect("reads");
    let seen = tokio::sync::Mutex::new(HashSet::new());
    let room = bench.group(&[ann]).await;
    // The first transaction begins to write before the second one and commits after it.
    bench
        .late_change(ann, async || {
            if bench.waits_for_no_writer() {
                bench.store.void_tokens(ben, NOW).await.expect("voids");
            }
            seen.lock().await.extend(found(&bench.store, &mut cursor).await);
        })
        .await;
    bench.say(room, ann, &["goes on"]).await;
    let late = found(&bench.store, &mut cursor).await;
    assert!(late.contains(&ann), "{late:?} after {seen:?}");
}
