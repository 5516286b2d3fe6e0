//! Accounts and what voids their tokens.

use domain::{Timestamp, UserId};
use store::StoreError;

use crate::bench::{Bench, NOW, new_user, on_both};

on_both!(
    an_address_belongs_to_one_account,
    an_account_comes_back_as_it_was_made,
    those_that_exist_are_found_among_many,
    signing_out_everywhere_moves_the_line_between_good_and_void_tokens,
    blocking_and_unblocking_is_seen_at_once,
    who_was_made_an_admin_is_one_until_that_is_taken_back,
    migrating_again_changes_nothing,
    of_concurrent_sign_ups_with_one_address_one_succeeds,
);

async fn an_address_belongs_to_one_account(bench: Bench) {
    let first = new_user(UserId::generate(), "ann@example.com");
    let again = new_user(UserId::generate(), "ann@example.com");
    bench.store.create_user(&first).await.expect("the first one");
    assert_eq!(bench.store.create_user(&again).await, Err(StoreError::Conflict("email")));
    assert_eq!(bench.store.user(again.id).await, Ok(None));
}

async fn an_account_comes_back_as_it_was_made(bench: Bench) {
    let new = new_user(UserId::generate(), "o'neil@example.com");
    let made = bench.store.create_user(&new).await.expect("made");
    let credentials = bench.store.credentials("o'neil@example.com").await.expect("reads").expect("is there");
    assert_eq!(credentials.user, made);
    assert_eq!(credentials.password_hash.as_deref(), Some(new.password_hash.as_str()));
    assert!(!credentials.blocked);
    assert_eq!(bench.store.user(new.id).await, Ok(Some(made)));
    assert!(bench.store.credentials("nobody@example.com").await.expect("reads").is_none());
}

async fn those_that_exist_are_found_among_many(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let found = bench.store.users(&[ann, UserId::generate(), ben]).await.expect("reads");
    let mut found: Vec<UserId> = found.into_iter().map(|user| user.id).collect();
    found.sort_unstable();
    assert_eq!(found, [ann, ben]);
    assert_eq!(bench.store.users(&[]).await, Ok(Vec::new()));
}

async fn signing_out_everywhere_moves_the_line_between_good_and_void_tokens(bench: Bench) {
    let ann = bench.user().await;
    let before = bench.store.account(ann).await.expect("reads").expect("is there");
    assert_eq!((before.blocked, before.tokens_valid_after), (false, Timestamp(0)));
    bench.store.void_tokens(ann, NOW).await.expect("voids");
    assert_eq!(bench.store.account(ann).await.expect("reads").expect("is there").tokens_valid_after, NOW);
    assert_eq!(bench.store.account(UserId::generate()).await, Ok(None));
}

async fn who_was_made_an_admin_is_one_until_that_is_taken_back(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let is_admin = async |user| bench.store.account(user).await.expect("reads").expect("is there").is_admin;
    assert!(!is_admin(ann).await);
    bench.store.set_admin(ann, true).await.expect("grants");
    assert_eq!((is_admin(ann).await, is_admin(ben).await), (true, false));
    let rooms = bench.store.membership_of(ann).await.expect("reads").expect("is there");
    assert!(rooms.account.is_admin, "however the account is read");
    bench.store.set_admin(ann, false).await.expect("revokes");
    assert!(!is_admin(ann).await);
}

async fn blocking_and_unblocking_is_seen_at_once(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    bench.store.set_blocked(ann, true, NOW).await.expect("blocks");
    let account = bench.store.account(ann).await.expect("reads").expect("is there");
    assert!(account.blocked);
    assert_eq!(account.tokens_valid_after, NOW);
    assert!(bench.store.standing(room, ann).await.expect("reads").expect("still a member").blocked);
    let batch = bench.begin(room, &[ann, ben]).await;
    assert!(batch.loaded.standings[&(room, ann)].blocked);
    assert!(!batch.loaded.standings[&(room, ben)].blocked);
    drop(batch);
    bench.store.set_blocked(ann, false, NOW).await.expect("unblocks");
    assert!(!bench.store.account(ann).await.expect("reads").expect("is there").blocked);
}

async fn migrating_again_changes_nothing(bench: Bench) {
    let ann = bench.user().await;
    let other = bench.second().await;
    let (one, two) = tokio::join!(bench.store.migrate(), other.migrate());
    one.and(two).expect("any number of services may migrate at once");
    assert!(bench.store.user(ann).await.expect("reads").is_some());
}

async fn of_concurrent_sign_ups_with_one_address_one_succeeds(bench: Bench) {
    let attempts = (0..8).map(|_| {
        let store = bench.store.clone();
        async move { store.create_user(&new_user(UserId::generate(), "same@example.com")).await }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(StoreError::Conflict("email")))));
}
