//! Rooms, their members, how far they have read.

use domain::room::{Role, RoomKind};
use domain::{Rev, RoomId, Seq, UserId};
use protocol::EventData;
use store::{Created, Reading, Standing, StoreError, StoreSettings};

use crate::bench::{Bench, NOW, new_group, new_room, on_both};

on_both!(
    a_new_room_begins_with_rev_1_and_its_creation_as_first_change,
    a_room_with_an_unknown_member_is_not_made,
    a_direct_room_exists_once_however_many_make_it_at_once,
    a_member_stands_where_the_room_stands,
    unread_counts_from_the_later_of_joining_and_reading,
    rooms_and_members_come_in_pages,
    only_who_shares_a_room_is_told_so,
    read_watermarks_only_move_forward_and_never_past_the_end,
    of_concurrent_reads_the_furthest_stays,
    a_read_mark_whose_commit_failed_did_not_move,
);

async fn a_new_room_begins_with_rev_1_and_its_creation_as_first_change(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let new = new_group(RoomId::generate(), &[ann, ben]);
    let Ok(Created::New(room)) = bench.store.create_room(&new).await else { panic!("it is new") };
    assert_eq!((room.rev, room.epoch, room.last_seq), (Rev(1), Rev(1), Seq::ZERO));
    assert_eq!(bench.room(room.id).await, room);
    let changes = bench.store.after_rev(room.id, Rev::ZERO, 10).await.expect("reads");
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].rev, changes[0].epoch), (Rev(1), Rev(1)));
    assert!(matches!(&changes[0].event, EventData::RoomCreated(created) if created.room_id == room.id.to_string()));
    let standing = bench.store.standing(room.id, ann).await.expect("reads");
    assert_eq!(standing, Some(Standing { kind: RoomKind::Group, role: Role::Owner, blocked: false }));
    assert_eq!(bench.store.standing(room.id, UserId::generate()).await, Ok(None));
    let again = bench.store.create_room(&new).await;
    assert_eq!(again, Ok(Created::Existing(room)));
}

async fn a_room_with_an_unknown_member_is_not_made(bench: Bench) {
    let ann = bench.user().await;
    let new = new_group(RoomId::generate(), &[ann, UserId::generate()]);
    assert_eq!(bench.store.create_room(&new).await, Err(StoreError::Conflict("memberIds")));
    assert_eq!(bench.store.room(new.id).await, Ok(None));
    assert_eq!(bench.store.rooms_of(ann).await, Ok(Vec::new()));
}

async fn a_direct_room_exists_once_however_many_make_it_at_once(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let second = bench.second().await;
    let id = RoomId::direct(ann, ben);
    let attempts = (0..10).map(|number| {
        let store = if number % 2 == 0 { bench.store.clone() } else { second.clone() };
        let new = new_room(id, RoomKind::Direct, &[(ann, Role::Member), (ben, Role::Member)]);
        async move { store.create_room(&new).await.expect("one way or the other") }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Created::New(_))).count(), 1);
    assert_eq!(bench.store.members(id, None, 10).await.expect("reads").len(), 2);
    assert_eq!(bench.store.direct_partners(&[ann], 10).await, Ok(vec![(ann, ben)]));
}

async fn a_member_stands_where_the_room_stands(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let (one, two) = (bench.group(&[ann, ben]).await, bench.group(&[ben]).await);
    bench.say(one, ann, &["a", "b"]).await;
    let states = bench.store.rooms_of(ben).await.expect("reads");
    assert_eq!(states.len(), 2);
    let state = states.iter().find(|state| state.room_id == one).expect("is there");
    assert_eq!((state.kind, state.role), (RoomKind::Group, Role::Member));
    assert_eq!((state.last_seq, state.rev, state.epoch), (Seq(2), Rev(3), Rev(1)));
    assert_eq!((state.read_seq, state.unread), (Seq::ZERO, 2));
    let states = bench.store.room_states(ann, &[one, two, two, RoomId::generate()]).await.expect("reads");
    assert_eq!(states.iter().map(|state| state.room_id).collect::<Vec<_>>(), [one]);
    let mut revs = bench.store.revs(&[one, two, RoomId::generate()]).await.expect("reads");
    revs.sort_unstable();
    let mut expected = [(one, Seq(2), Rev(3)), (two, Seq::ZERO, Rev(1))];
    expected.sort_unstable();
    assert_eq!(revs, expected);
}

async fn unread_counts_from_the_later_of_joining_and_reading(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann]).await;
    bench.say(room, ann, &["1", "2", "3"]).await;
    let batch = bench.begin(room, &[ann, ben]).await;
    assert!(!batch.loaded.standings.contains_key(&(room, ben)));
    let mut draft = crate::bench::Draft::of(&batch, room);
    draft.writes.joined.push((room, ben, Role::Admin, draft.head.last_seq));
    draft.head.epoch = Rev(draft.head.rev.0 + 1);
    draft.change(EventData::RoomMemberJoined(protocol::wire::RoomMemberJoined::default()));
    batch.commit(draft.finish()).await.expect("commits");
    let unread = async || bench.store.rooms_of(ben).await.expect("reads")[0].unread;
    assert_eq!(unread().await, 0);
    bench.say(room, ann, &["4", "5"]).await;
    assert_eq!(unread().await, 2);
    bench.store.set_read(room, ben, Seq(4), NOW).await.expect("reads");
    assert_eq!(unread().await, 1);
    assert_eq!(bench.store.standing(room, ben).await.expect("reads").expect("a member").role, Role::Admin);
    assert_eq!(bench.room(room).await.epoch, Rev(5));
}

async fn rooms_and_members_come_in_pages(bench: Bench) {
    let users: [UserId; 5] = bench.users().await;
    let room = bench.group(&users).await;
    let first = bench.store.members(room, None, 3).await.expect("reads");
    let rest = bench.store.members(room, Some(first[2].0), 3).await.expect("reads");
    let all: Vec<UserId> = first.iter().chain(&rest).map(|(user, _)| *user).collect();
    let mut sorted = users.to_vec();
    sorted.sort_unstable();
    assert_eq!(all, sorted);
    let mut rooms = vec![room];
    for _ in 0..4 {
        rooms.push(bench.group(&users[..2]).await);
    }
    rooms.sort_unstable();
    let first = bench.store.conversations(users[0], None, 2).await.expect("reads");
    let rest = bench.store.conversations(users[0], Some(first[1].id), 10).await.expect("reads");
    let all: Vec<RoomId> = first.iter().chain(&rest).map(|room| room.id).collect();
    assert_eq!(all, rooms);
    assert_eq!(first[0].title.as_deref(), Some("Weekend"));
}

async fn only_who_shares_a_room_is_told_so(bench: Bench) {
    let [ann, ben, eve] = bench.users().await;
    bench.group(&[ann, ben]).await;
    bench.group(&[ann, ben]).await;
    bench.group(&[eve]).await;
    let shared = bench.store.sharing_room(ann, &[ben, eve, UserId::generate()]).await;
    assert_eq!(shared, Ok(vec![ben]));
    assert_eq!(bench.store.direct_partners(&[ann], 10).await, Ok(Vec::new()), "groups are not direct rooms");
}

async fn read_watermarks_only_move_forward_and_never_past_the_end(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    bench.say(room, ann, &["1", "2", "3"]).await;
    let read = async |seq| bench.store.set_read(room, ben, Seq(seq), NOW).await.expect("answers");
    assert_eq!(read(2).await, Reading::Moved(Seq(2)));
    assert_eq!(read(2).await, Reading::Stood);
    assert_eq!(read(1).await, Reading::Stood);
    assert_eq!(read(99).await, Reading::Moved(Seq(3)));
    assert_eq!(read(100).await, Reading::Stood);
    assert_eq!(bench.store.set_read(room, UserId::generate(), Seq(1), NOW).await, Ok(Reading::NoMember));
    assert_eq!(bench.reads(room).await, vec![(ben, Seq(3))]);
}

async fn of_concurrent_reads_the_furthest_stays(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let contents: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    bench.say(room, ann, &contents.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let reads = (1..=20).rev().map(|seq| {
        let store = bench.store.clone();
        async move { store.set_read(room, ben, Seq(seq), NOW).await.expect("answers") }
    });
    futures_util::future::join_all(reads).await;
    assert_eq!(bench.reads(room).await, vec![(ben, Seq(20))]);
}

/// Commits of read marks fail, after everything else went well.
const NO_COMMIT_POSTGRES: &str = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
    CREATE CONSTRAINT TRIGGER no_commit AFTER UPDATE ON room_members DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail()";
const NO_COMMIT_SQLITE: &str = "CREATE TABLE nowhere (id INTEGER PRIMARY KEY);
    CREATE TABLE lost (id INTEGER REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER no_commit AFTER UPDATE ON room_members BEGIN INSERT INTO lost VALUES (1); END";

async fn a_read_mark_whose_commit_failed_did_not_move(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    bench.say(room, ann, &["1", "2"]).await;
    let is_sqlite = matches!(bench.settings, StoreSettings::Sqlite { .. });
    bench.execute(if is_sqlite { NO_COMMIT_SQLITE } else { NO_COMMIT_POSTGRES }).await;
    let moved = bench.store.set_read(room, ben, Seq(2), NOW).await;
    assert!(moved.is_err(), "{moved:?}, though it is not stored");
    assert_eq!(bench.reads(room).await, vec![]);
}
