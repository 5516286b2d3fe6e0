//! What users wish to be seen as, and whom their presence may concern.

use std::collections::BTreeSet;

use domain::presence::Status;
use domain::room::{Role, RoomKind};
use domain::{RoomId, UserId};
use store::Created;

use crate::bench::{Bench, new_room, on_both};

on_both!(
    the_last_wish_of_each_is_kept,
    wishes_of_the_same_people_told_at_once_do_not_hinder_one_another,
    the_partners_of_many_are_found_by_one_question_and_bounded_for_each,
);

async fn the_last_wish_of_each_is_kept(bench: Bench) {
    let [ann, ben, eve] = bench.users().await;
    let store = &bench.store;
    store.set_wishes(&[(ann, Status::Busy), (ben, Status::Invisible)]).await.expect("kept");
    store.set_wishes(&[(ann, Status::Online)]).await.expect("kept");
    store.set_wishes(&[]).await.expect("nothing to keep");
    let mut wishes = bench.second().await.wishes(&[ann, ben, eve]).await.expect("reads");
    wishes.sort_unstable();
    let mut expected = vec![(ann, Status::Online), (ben, Status::Invisible)];
    expected.sort_unstable();
    assert_eq!(wishes, expected, "who never wished anything is not there");
    assert_eq!(store.wishes(&[]).await, Ok(vec![]));
}

async fn wishes_of_the_same_people_told_at_once_do_not_hinder_one_another(bench: Bench) {
    let users: Vec<UserId> = (0..200).map(|_| UserId::generate()).collect();
    let writers = (0..8).map(|writer| {
        let mut wishes: Vec<_> = users.iter().map(|user| (*user, Status::Away)).collect();
        if writer % 2 == 1 {
            wishes.reverse();
        }
        let store = bench.store.clone();
        async move { store.set_wishes(&wishes).await }
    });
    let written = futures_util::future::join_all(writers).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    assert_eq!(bench.store.wishes(&users).await.expect("reads").len(), users.len());
}

async fn the_partners_of_many_are_found_by_one_question_and_bounded_for_each(bench: Bench) {
    let [ann, ben, eve, lone] = bench.users().await;
    for (one, other) in [(ann, ben), (ann, eve), (ben, eve)] {
        let members = [(one, Role::Member), (other, Role::Member)];
        let made = bench.store.create_room(&new_room(RoomId::direct(one, other), RoomKind::Direct, &members)).await;
        assert!(matches!(made, Ok(Created::New(_))), "{made:?}");
    }
    bench.group(&[lone, ann]).await;
    let ask = async |users: &[UserId], limit| {
        let found = bench.store.direct_partners(users, limit).await.expect("reads");
        let pairs: BTreeSet<_> = found.iter().copied().collect();
        assert_eq!(pairs.len(), found.len(), "each once");
        pairs
    };
    let expected = [(ann, ben), (ann, eve), (eve, ann), (eve, ben)];
    assert_eq!(ask(&[ann, eve, lone], 10).await, BTreeSet::from(expected));
    let bounded = ask(&[ann, ben, eve], 1).await;
    assert_eq!(bounded.iter().map(|(user, _)| *user).collect::<BTreeSet<_>>(), BTreeSet::from([ann, ben, eve]));
    assert_eq!(bounded.len(), 3);
    assert_eq!(ask(&[], 10).await, BTreeSet::new());
}
