//! Joining, leaving and reading, as those are told who were not there.

use domain::room::Role;
use domain::{Rev, RoomId, Seq, Timestamp, UserId};
use protocol::EventData;
use protocol::wire::{RoomMemberJoined, RoomMemberLeft};
use store::member::READS_SINCE_MOST;
use store::{Reading, StoreSettings};

use crate::bench::{Bench, Draft, NOW, on_both};

on_both!(
    a_departure_is_remembered_by_its_latest_change,
    who_comes_back_has_read_as_far_as_before,
    a_mark_set_while_its_reader_is_removed_and_added_stands,
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

async fn who_comes_back_has_read_as_far_as_before(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let (room, other) = (bench.group(&[ann, ben]).await, bench.group(&[ann, ben]).await);
    let reads = async |room| {
        let reads = bench.reads(room).await;
        reads.into_iter().find(|(user, _)| *user == ben).map_or(Seq(0), |(_, seq)| seq)
    };
    bench.say(room, ann, &["1", "2", "3", "4", "5"]).await;
    bench.store.set_read(room, ben, Seq(4), NOW).await.expect("answers");
    for _ in 0..2 {
        change(&bench, room, ben, false).await;
        assert_eq!(bench.store.set_read(room, ben, Seq(5), NOW).await, Ok(Reading::NoMember), "gone");
        change(&bench, room, ben, true).await;
        assert_eq!(reads(room).await, Seq(4));
        assert_eq!(bench.store.set_read(room, ben, Seq(3), NOW).await, Ok(Reading::Stood), "only forward");
    }
    change(&bench, other, ben, false).await;
    change(&bench, other, ben, true).await;
    assert_eq!(reads(other).await, Seq(0));

    // Came and went at once, while away.
    change(&bench, room, ben, false).await;
    let batch = bench.begin(room, &[ben]).await;
    let mut draft = Draft::of(&batch, room);
    for joins in [true, false] {
        draft.head.epoch = draft.head.rev.next();
        let (room_id, user_id, rev) = (room.to_string(), ben.to_string(), draft.head.epoch.0);
        draft.change(if joins {
            EventData::RoomMemberJoined(RoomMemberJoined { room_id, rev, user_id, ..RoomMemberJoined::default() })
        } else {
            EventData::RoomMemberLeft(RoomMemberLeft { room_id, rev, user_id, ..RoomMemberLeft::default() })
        });
    }
    draft.writes.left.push((room, ben));
    batch.commit(draft.finish()).await.expect("commits");
    change(&bench, room, ben, true).await;
    assert_eq!(reads(room).await, Seq(4));
}

async fn a_mark_set_while_its_reader_is_removed_and_added_stands(bench: Bench) {
    use sqlx::{Connection as _, PgConnection};
    // The other database has one writer: nothing happens meanwhile.
    let StoreSettings::Postgres { url, .. } = &bench.settings else { return };
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    bench.say(room, ann, &["1", "2", "3"]).await;
    let mut changing = PgConnection::connect(url).await.expect("connects");
    let mut watching = PgConnection::connect(url).await.expect("connects");
    let mut change = changing.begin().await.expect("begins");
    let keep = sqlx::raw_sql("CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT * FROM room_members");
    keep.execute(&mut *change).await.expect("kept");
    for sql in [
        "DELETE FROM room_members WHERE user_id = $1",
        "INSERT INTO room_members SELECT * FROM gone WHERE user_id = $1",
    ] {
        sqlx::query(sql).bind(ben.0).execute(&mut *change).await.expect("done");
    }
    let commit = async {
        crate::bench::until_somebody_waits(&mut watching).await;
        change.commit().await.expect("commits");
    };
    let (read, ()) = tokio::join!(bench.store.set_read(room, ben, Seq(2), NOW), commit);
    assert_eq!(read, Ok(Reading::Moved(Seq(2))));
    assert_eq!(bench.reads(room).await, vec![(ben, Seq(2))]);
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
        bench.store.set_read(room, user, Seq(seq), at(ms)).await.expect("set");
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
        bench.store.set_read(large, *user, Seq(1), at(1)).await.expect("set");
    }
    assert_eq!(bench.store.reads_since(&[large], at(0)).await.expect("reads").len(), READS_SINCE_MOST);
}
