//! Refresh tokens: rotation, reuse, ends.

use std::time::Duration;

use domain::{Timestamp, UserId};
use store::{NewRefresh, NextRefresh, Rotation, Store};
use uuid::Uuid;

use crate::bench::{Bench, NOW, on_both};

const HOUR: Duration = Duration::from_hours(1);

on_both!(
    a_token_rotates_once_and_its_successor_next,
    a_token_used_twice_ends_its_family_and_no_other,
    of_concurrent_uses_exactly_one_rotates,
    an_expired_or_unknown_token_is_unknown,
    a_logout_ends_the_family,
    signing_out_everywhere_and_blocking_end_all_families,
    only_expired_ones_are_purged,
    no_statement_removes_more_than_a_slice_however_many_tokens_a_family_has,
    a_family_with_a_token_that_is_good_stays,
);

fn hash(name: u8) -> [u8; 32] {
    [name; 32]
}

fn next(name: u8) -> NextRefresh {
    NextRefresh { hash: hash(name), expires_at: NOW.plus(HOUR) }
}

async fn start(store: &Store, user: UserId, name: u8) -> Uuid {
    let family = Uuid::now_v7();
    let new = NewRefresh { hash: hash(name), family, user, expires_at: NOW.plus(HOUR), created_at: NOW };
    store.start_family(&new).await.expect("starts");
    family
}

async fn rotate(store: &Store, from: u8, to: u8) -> Rotation {
    store.rotate(&hash(from), &next(to), NOW).await.expect("answers")
}

async fn a_token_rotates_once_and_its_successor_next(bench: Bench) {
    let user = bench.user().await;
    let family = start(&bench.store, user, 1).await;
    assert_eq!(rotate(&bench.store, 1, 2).await, Rotation::Rotated { user, family });
    assert_eq!(rotate(&bench.store, 2, 3).await, Rotation::Rotated { user, family });
}

async fn a_token_used_twice_ends_its_family_and_no_other(bench: Bench) {
    let user = bench.user().await;
    start(&bench.store, user, 1).await;
    let other = start(&bench.store, user, 10).await;
    rotate(&bench.store, 1, 2).await;
    assert_eq!(rotate(&bench.store, 1, 3).await, Rotation::Reused { user });
    assert_eq!(rotate(&bench.store, 2, 4).await, Rotation::Unknown, "the successor has ended too");
    assert_eq!(rotate(&bench.store, 3, 4).await, Rotation::Unknown, "nothing came of the second use");
    assert_eq!(rotate(&bench.store, 10, 11).await, Rotation::Rotated { user, family: other });
}

async fn of_concurrent_uses_exactly_one_rotates(bench: Bench) {
    let user = bench.user().await;
    let second = bench.second().await;
    for round in 0..5u8 {
        let from = 100 + round * 10;
        start(&bench.store, user, from).await;
        let attempts = (1..=6u8).map(|number| {
            let store = if number % 2 == 0 { bench.store.clone() } else { second.clone() };
            async move { rotate(&store, from, from + number).await }
        });
        let outcomes = futures_util::future::join_all(attempts).await;
        let rotated = outcomes.iter().filter(|outcome| matches!(outcome, Rotation::Rotated { .. })).count();
        let reused = outcomes.iter().filter(|outcome| matches!(outcome, Rotation::Reused { .. })).count();
        assert_eq!((rotated, reused), (1, 1), "{outcomes:?}");
        for name in 1..=6 {
            assert_eq!(rotate(&bench.store, from + name, from + 9).await, Rotation::Unknown);
        }
    }
}

async fn an_expired_or_unknown_token_is_unknown(bench: Bench) {
    let user = bench.user().await;
    start(&bench.store, user, 1).await;
    let late = NOW.plus(HOUR);
    assert_eq!(bench.store.rotate(&hash(1), &next(2), late).await, Ok(Rotation::Unknown));
    assert_eq!(rotate(&bench.store, 77, 78).await, Rotation::Unknown);
}

async fn a_logout_ends_the_family(bench: Bench) {
    let user = bench.user().await;
    start(&bench.store, user, 1).await;
    rotate(&bench.store, 1, 2).await;
    assert_eq!(bench.store.end_family(&hash(2), NOW).await, Ok(true));
    assert_eq!(bench.store.end_family(&hash(2), NOW).await, Ok(false));
    assert_eq!(rotate(&bench.store, 2, 3).await, Rotation::Unknown);
}

async fn signing_out_everywhere_and_blocking_end_all_families(bench: Bench) {
    let [ann, ben] = bench.users().await;
    for name in 1..=3 {
        start(&bench.store, ann, name).await;
    }
    let untouched = start(&bench.store, ben, 9).await;
    bench.store.void_tokens(ann, NOW).await.expect("voids");
    assert_eq!(rotate(&bench.store, 1, 11).await, Rotation::Unknown);
    assert_eq!(rotate(&bench.store, 2, 12).await, Rotation::Unknown);
    start(&bench.store, ann, 4).await;
    bench.store.set_blocked(ann, true, NOW).await.expect("blocks");
    assert_eq!(rotate(&bench.store, 4, 14).await, Rotation::Unknown);
    assert_eq!(rotate(&bench.store, 9, 19).await, Rotation::Rotated { user: ben, family: untouched });
}

async fn only_expired_ones_are_purged(bench: Bench) {
    let user = bench.user().await;
    start(&bench.store, user, 1).await;
    assert_eq!(bench.store.purge_expired(NOW, 10).await, Ok(0));
    let family = start(&bench.store, user, 2).await;
    let far = NextRefresh { hash: hash(3), expires_at: NOW.plus(HOUR * 10) };
    bench.store.rotate(&hash(2), &far, NOW).await.expect("rotates");
    // Family 1 with its token, and the used token of family 2, are past their time.
    let later = Timestamp(NOW.plus(HOUR).0 + 1);
    assert_eq!(bench.store.purge_expired(later, 10).await, Ok(3));
    let rotated = bench.store.rotate(&hash(3), &next(4), later).await;
    assert_eq!(rotated, Ok(Rotation::Rotated { user, family }));
}

async fn no_statement_removes_more_than_a_slice_however_many_tokens_a_family_has(bench: Bench) {
    let user = bench.user().await;
    let family = start(&bench.store, user, 1).await;
    for name in 1..=24 {
        assert_eq!(rotate(&bench.store, name, name + 1).await, Rotation::Rotated { user, family });
    }
    let later = Timestamp(NOW.plus(HOUR).0 + 1);
    for expected in [10, 10, 5 + 1, 0] {
        assert_eq!(bench.store.purge_expired(later, 10).await, Ok(expected));
    }
}

async fn a_family_with_a_token_that_is_good_stays(bench: Bench) {
    let user = bench.user().await;
    let family = start(&bench.store, user, 1).await;
    // The next token's time is shorter than that of the one before, as after a change of the setting.
    let short = NextRefresh { hash: hash(2), expires_at: NOW.plus(HOUR / 2) };
    bench.store.rotate(&hash(1), &short, NOW).await.expect("rotates");
    let late = NOW.plus(HOUR / 2 + Duration::from_secs(1));
    assert_eq!(bench.store.purge_expired(late, 10).await, Ok(1), "only the short one");
    assert_eq!(rotate(&bench.store, 1, 3).await, Rotation::Reused { user }, "it is known that it was used: {family}");
}
