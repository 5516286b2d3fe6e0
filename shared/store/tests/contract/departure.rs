//! Joining, leaving and reading, as those are told who were not there.

use domain::room::Role;
use domain::{Rev, RoomId, Seq, Timestamp, UserId};
use protocol::EventData;
use protocol::wire::{RoomMemberJoined, RoomMemberLeft};
use store::member::READS_SINCE_MOST;

use crate::bench::{Bench, Draft, NOW, on_both};

on_both!(
    a_departure_is_remembered_by_its_latest_change,
    the_change_by_which_somebody_joined_is_found,
    marks_are_told_from_a_moment_on_and_no_more_than_fit,
);

/// The user joins or leaves the room; the change's number.
async fn change(bench: &Bench, room: RoomId, user: UserId, joins: bool) -> Rev {
    change_at(bench, room, user, joins, NOW).await
}

pub(crate) async fn change_at(bench: &Bench, room: RoomId, user: UserId, joins: bool, at: Timestamp) -> Rev {
    let batch = bench.begin(room, &[user]).await;
    let mut draft = Draft::of(&batch, room);
    draft.head.epoch = draft.head.rev.next();
    let (room_id, user_id, rev) = (room.to_string(), user.to_string(), draft.head.epoch.0);
    if joins {
        let joined = RoomMemberJoined { room_id, rev, user_id, ..RoomMemberJoined::default() };
        draft.change(EventData::RoomMemberJoined(joined));
        draft.writes.joined.push((room, user, Role::Member, draft.head.last_seq));
    } else {
        draft.change(EventData::RoomMemberLeft(RoomMemberLeft { room_id, rev, user_id, ..RoomMemberLeft::default() }));
        draft.writes.left.push((room, user));
    }
    let rev = draft.head.rev;
    draft.writes.events.iter_mut().for_each(|event| event.at = at);
    batch.commit(draft.finish()).await.expect("commits");
    rev
}

async fn a_departure_is_remembered_by_its_latest_change(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let (one, two) = (bench.group(&[ann, ben]).await, bench.group(&[ann, ben]).await);
    assert_eq!(bench.store.departures(ben, 10).await, Ok(Vec::new()));
    let first = change(&bench, one, ben, false).await;
    assert_eq!(bench.store.departures(ben, 10).await, Ok(vec![(one, first)]));
    change(&bench, one, ben, true).await;
    let again = change(&bench, one, ben, false).await;
    assert!(again > first);
    assert_eq!(bench.store.departure(ben, one).await, Ok(Some(again)));
    assert_eq!(bench.store.departure(ann, one).await, Ok(None));
    let other = change(&bench, two, ben, false).await;
    let mut all = bench.store.departures(ben, 10).await.expect("reads");
    all.sort_unstable();
    let mut expected = vec![(one, again), (two, other)];
    expected.sort_unstable();
    assert_eq!(all, expected);
    assert_eq!(bench.store.departures(ben, 1).await.expect("reads").len(), 1);
    assert_eq!(bench.store.departures(ann, 10).await, Ok(Vec::new()));
}

async fn the_change_by_which_somebody_joined_is_found(bench: Bench) {
    let [ann, ben, eve] = bench.users().await;
    let room = bench.group(&[ann]).await;
    let joined = async |user| bench.store.joined_rev(room, user).await.expect("reads");
    assert_eq!((joined(ann).await, joined(ben).await), (Some(Rev(1)), None));
    let early = change(&bench, room, eve, true).await;
    bench.say(room, ann, &["1", "2"]).await;
    let first = change(&bench, room, ben, true).await;
    assert_eq!((joined(ben).await, joined(eve).await), (Some(first), Some(early)));
    change(&bench, room, ben, false).await;
    assert_eq!(joined(ben).await, None);
    let again = change(&bench, room, ben, true).await;
    change(&bench, room, eve, false).await;
    bench.say(room, ann, &["3", "4"]).await;
    change(&bench, room, eve, true).await;
    assert_eq!((joined(ben).await, joined(ann).await), (Some(again), Some(Rev(1))));
}

async fn marks_are_told_from_a_moment_on_and_no_more_than_fit(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let (one, two, other) = (bench.group(&[ann, ben]).await, bench.group(&[ben]).await, bench.group(&[ann]).await);
    for room in [one, two, other] {
        bench.say(room, if room == two { ben } else { ann }, &["1", "2"]).await;
    }
    let at = |ms: i64| Timestamp(NOW.0 + ms);
    for (room, user, seq, ms) in [(one, ann, 1, 30), (one, ben, 2, 10), (two, ben, 1, 20), (other, ann, 1, 25)] {
        bench.store.set_read(room, user, Seq(seq), at(ms)).await.expect("set").expect("moved");
    }
    let since = async |ms| {
        let marks = bench.store.reads_since(&[one, two], at(ms)).await.expect("reads");
        marks.iter().map(|mark| (mark.room, mark.user, mark.seq.0, mark.at.0 - NOW.0)).collect::<Vec<_>>()
    };
    assert_eq!(since(0).await, [(one, ben, 2, 10), (two, ben, 1, 20), (one, ann, 1, 30)]);
    assert_eq!(since(20).await, [(one, ann, 1, 30)], "after the moment, not at it");
    assert_eq!(since(30).await, []);
    assert_eq!(bench.store.reads_since(&[], at(0)).await, Ok(Vec::new()));
    let many: Vec<UserId> = futures_util::future::join_all((0..=READS_SINCE_MOST).map(|_| bench.user())).await;
    let large = bench.group(&many).await;
    bench.say(large, many[0], &["1"]).await;
    for user in &many {
        bench.store.set_read(large, *user, Seq(1), at(1)).await.expect("set").expect("moved");
    }
    assert_eq!(bench.store.reads_since(&[large], at(0)).await.expect("reads").len(), READS_SINCE_MOST);
}
