//! The storing transaction: order, once, all or nothing.

use std::collections::{HashMap, HashSet};

use domain::room::{Role, RoomKind};
use domain::{JobId, MessageId, Rev, RoomId, Seq, Timestamp, UserId};
use protocol::{Code, EventData, wire};
use store::{Edit, Reaction, Receipt, Scope, Store, StoreError, Writes};

use crate::bench::{Bench, Draft, NOW, begin, edited, new_message, on_both};

on_both!(
    concurrent_batches_leave_no_gap_and_no_repeat,
    batches_that_store_the_same_ids_in_another_order_do_not_deadlock,
    a_message_stored_before_conflicts_and_nothing_is_written,
    a_job_stored_before_conflicts_and_nothing_is_written,
    a_batch_that_is_dropped_leaves_no_trace,
    what_is_loaded_is_what_there_is,
    a_message_is_its_own_receipt,
    a_change_leaves_its_receipt,
    a_refusal_leaves_its_receipt,
    what_was_refused_is_never_stored_and_what_was_stored_never_refused,
    a_job_without_effect_leaves_its_receipt,
    what_somebody_gave_a_message_is_loaded,
    standings_are_read_without_a_batch,
    who_leaves_is_gone_and_may_come_back,
    titles_change,
    an_empty_scope_and_empty_writes_do_no_harm,
    a_text_no_database_can_hold_is_rejected_and_not_transient,
);

async fn concurrent_batches_leave_no_gap_and_no_repeat(bench: Bench) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 10;
    let [ann, ben] = bench.users().await;
    let rooms = [bench.group(&[ann, ben]).await, bench.group(&[ann, ben]).await, bench.group(&[ann]).await];
    let second = bench.second().await;
    let writers = (0..WRITERS).map(|writer| {
        let store = if writer % 2 == 0 { bench.store.clone() } else { second.clone() };
        let mut rooms = rooms.to_vec();
        rooms.rotate_left(writer % 3);
        async move {
            for _ in 0..ROUNDS {
                store_one_in_each(&store, &rooms, ann).await;
            }
        }
    });
    futures_util::future::join_all(writers).await;
    for room in rooms {
        let rows = bench.store.after_seq(room, Seq::ZERO, 1000).await.expect("reads");
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq.0).collect();
        assert_eq!(seqs, (1..=(WRITERS * ROUNDS) as i64).collect::<Vec<_>>());
        let changes = bench.store.after_rev(room, Rev(1), 1000).await.expect("contiguous");
        let revs: Vec<i64> = changes.iter().map(|change| change.rev.0).collect();
        assert_eq!(revs, (2..=(WRITERS * ROUNDS) as i64 + 1).collect::<Vec<_>>());
        assert_eq!(bench.room(room).await.last_seq, Seq((WRITERS * ROUNDS) as i64));
    }
}

async fn batches_that_store_the_same_ids_in_another_order_do_not_deadlock(bench: Bench) {
    let ann = bench.user().await;
    let rooms = [bench.group(&[ann]).await, bench.group(&[ann]).await];
    let second = bench.second().await;
    for round in 0..10 {
        let names: Vec<String> = (0..400).map(|number| format!("{round}-{number}")).collect();
        let forth = store_all(&bench.store, rooms[0], ann, names.iter());
        let back = store_all(&second, rooms[1], ann, names.iter().rev());
        let outcomes = tokio::join!(forth, back);
        let conflict = Err(StoreError::Conflict("message"));
        assert!(outcomes == (Ok(()), conflict.clone()) || outcomes == (conflict, Ok(())), "{outcomes:?}");
    }
}

async fn store_all(
    store: &Store,
    room: RoomId,
    sender: UserId,
    names: impl Iterator<Item = &String>,
) -> Result<(), StoreError> {
    let batch = begin(store, room, &[sender]).await?;
    let mut draft = Draft::of(&batch, room);
    for name in names {
        draft.row(new_message(room, sender, name, "hi"));
    }
    batch.commit(draft.finish()).await
}

async fn store_one_in_each(store: &Store, rooms: &[RoomId], sender: UserId) {
    let scope = Scope { rooms: rooms.to_vec(), ..Scope::default() };
    let batch = store.begin(&scope).await.expect("waits for its turn");
    let mut all = Writes::default();
    for room in rooms {
        let mut draft = Draft::of(&batch, *room);
        draft.message(sender, "x");
        let writes = draft.finish();
        all.messages.extend(writes.messages);
        all.events.extend(writes.events);
        all.heads.extend(writes.heads);
    }
    batch.commit(all).await.expect("commits");
}

async fn a_message_stored_before_conflicts_and_nothing_is_written(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let id = bench.say(room, ann, &["first"]).await[0];
    let before = bench.room(room).await;
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let fresh = draft.message(ann, "new");
    let mut again = new_message(room, ann, "other", "again");
    again.id = id;
    draft.row(again);
    draft.writes.titles.push((room, "changed".to_owned(), Timestamp(1)));
    assert_eq!(batch.commit(draft.finish()).await, Err(StoreError::Conflict("message")));
    assert_eq!(bench.room(room).await, before);
    assert_eq!(bench.store.message(fresh).await, Ok(None));
    assert_eq!(bench.message(id).await.content, "first");
    bench.say(room, ann, &["goes on"]).await;
}

async fn a_job_stored_before_conflicts_and_nothing_is_written(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let updated = || EventData::RoomUpdated(wire::RoomUpdated::default());
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let job = draft.change(updated());
    batch.commit(draft.finish()).await.expect("commits");
    let before = bench.room(room).await;

    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let fresh = draft.message(ann, "new");
    draft.change(updated());
    draft.writes.events.last_mut().expect("one").job = Some(job);
    assert_eq!(batch.commit(draft.finish()).await, Err(StoreError::Conflict("job")));
    assert_eq!(bench.room(room).await, before);
    assert_eq!(bench.store.message(fresh).await, Ok(None));

    for outcome in [Ok(()), Err(StoreError::Conflict("job"))] {
        let batch = bench.begin(room, &[ann]).await;
        let mut draft = Draft::of(&batch, room);
        draft.refuse(JobId(room.0), Code::Forbidden);
        assert_eq!(batch.commit(draft.finish()).await, outcome);
    }
}

async fn a_batch_that_is_dropped_leaves_no_trace(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let before = bench.room(room).await;
    drop(bench.begin(room, &[ann]).await);
    // Its locks are gone too: the next one does not wait for a time-out.
    bench.say(room, ann, &["next"]).await;
    assert_eq!(bench.room(room).await.rev, before.rev.next());
}

async fn what_is_loaded_is_what_there_is(bench: Bench) {
    let [ann, ben, eve] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let id = bench.say(room, ann, &["hello"]).await[0];
    let nowhere = RoomId::generate();
    let scope = Scope {
        rooms: vec![room, nowhere, room],
        actors: vec![(room, ann), (room, ben), (room, eve), (nowhere, ann), (room, ann)],
        messages: vec![id, MessageId(nowhere.0), id],
        jobs: vec![JobId::generate()],
        ..Scope::default()
    };
    let batch = bench.store.begin(&scope).await.expect("begins");
    let loaded = &batch.loaded;
    assert_eq!(loaded.rooms.keys().collect::<Vec<_>>(), [&room]);
    let head = loaded.rooms[&room];
    assert_eq!((head.kind, head.last_seq, head.rev, head.epoch), (RoomKind::Group, Seq(1), Rev(2), Rev(1)));
    let members: HashSet<_> = loaded.standings.keys().copied().collect();
    assert_eq!(members, HashSet::from([(room, ann), (room, ben)]));
    assert_eq!(loaded.standings[&(room, ann)].role, Role::Owner);
    assert_eq!(loaded.messages.len(), 1);
    assert_eq!(loaded.messages[&id].content, "hello");
    assert!(loaded.receipts.is_empty());
}

async fn receipt(bench: &Bench, room: RoomId, job: JobId) -> Receipt {
    let scope = Scope { rooms: vec![room], jobs: vec![job, job, JobId::generate()], ..Scope::default() };
    let mut batch = bench.store.begin(&scope).await.expect("begins");
    assert_eq!(batch.loaded.receipts.len(), 1);
    batch.loaded.receipts.remove(&job).expect("was done before")
}

async fn a_message_is_its_own_receipt(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let id = bench.say(room, ann, &["a", "b"]).await[1];
    let Receipt::Stored { room: stored_in, entry } = receipt(&bench, room, id.into()).await else {
        panic!("it was stored")
    };
    assert_eq!((stored_in, entry.rev, entry.epoch), (room, Rev(3), Rev(1)));
    assert_eq!(entry.event, EventData::MessageDelivered(bench.message(id).await.to_wire()));
}

async fn a_change_leaves_its_receipt(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let id = bench.say(room, ann, &["one"]).await[0];
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let job = draft.change(edited(room, id, "two"));
    draft.writes.edits.push(Edit { message: id, content: "two".to_owned(), at: NOW });
    batch.commit(draft.finish()).await.expect("commits");
    let Receipt::Stored { entry, .. } = receipt(&bench, room, job).await else { panic!("it was stored") };
    assert_eq!((entry.rev, entry.event), (Rev(3), edited(room, id, "two")));
}

async fn a_refusal_leaves_its_receipt(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let job = JobId::generate();
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    draft.refuse(job, Code::NotFound);
    let writes = draft.finish();
    batch.commit(Writes { heads: Vec::new(), ..writes }).await.expect("commits");
    assert_eq!(receipt(&bench, room, job).await, Receipt::Refused(Code::NotFound));
    assert_eq!(bench.room(room).await.rev, Rev(1), "a refusal takes no place in the order");
}

async fn what_was_refused_is_never_stored_and_what_was_stored_never_refused(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let row = new_message(room, ann, "m1", "hello");
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    draft.refuse(row.id.into(), Code::NotFound);
    batch.commit(draft.finish()).await.expect("commits");

    let before = bench.room(room).await;
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let fresh = draft.message(ann, "of the same batch");
    let refused = draft.row(row);
    assert_eq!(batch.commit(draft.finish()).await, Err(StoreError::Conflict("message")));
    assert_eq!((bench.store.message(fresh).await, bench.store.message(refused).await), (Ok(None), Ok(None)));
    assert_eq!(bench.room(room).await, before);
    assert_eq!(receipt(&bench, room, refused.into()).await, Receipt::Refused(Code::NotFound));

    let stored = bench.say(room, ann, &["stored"]).await[0];
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    draft.refuse(stored.into(), Code::NotFound);
    assert_eq!(batch.commit(draft.finish()).await, Err(StoreError::Conflict("job")));
    assert!(matches!(receipt(&bench, room, stored.into()).await, Receipt::Stored { .. }));
}

async fn a_job_without_effect_leaves_its_receipt(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let job = JobId::generate();
    for outcome in [Ok(()), Err(StoreError::Conflict("job"))] {
        let batch = bench.begin(room, &[ann]).await;
        assert_eq!(batch.commit(Writes { idle: vec![(job, room, NOW)], ..Writes::default() }).await, outcome);
    }
    assert_eq!(receipt(&bench, room, job).await, Receipt::Idle);
}

async fn what_somebody_gave_a_message_is_loaded(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let id = bench.say(room, ann, &["hello"]).await[0];
    let batch = bench.begin(room, &[ann]).await;
    let given = |user, emoji: &str| Reaction { message: id, user, emoji: emoji.to_owned(), removed: false, at: NOW };
    let reactions = vec![given(ann, "👍"), given(ann, "🎉"), given(ben, "👀")];
    batch.commit(Writes { reactions, ..Writes::default() }).await.expect("commits");
    let scope = Scope { reactions: vec![(id, ann), (MessageId(room.0), ann)], ..Scope::default() };
    let batch = bench.store.begin(&scope).await.expect("begins");
    let anns = HashSet::from(["👍".to_owned(), "🎉".to_owned()]);
    assert_eq!(batch.loaded.reactions, HashMap::from([((id, ann), anns)]));
}

async fn standings_are_read_without_a_batch(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann]).await;
    let found = bench.store.standings(&[(room, ann), (room, ben), (room, ann)]).await.expect("reads");
    assert_eq!(found.keys().collect::<Vec<_>>(), [&(room, ann)]);
    assert_eq!(bench.store.standings(&[]).await.expect("reads").len(), 0);
}

async fn who_leaves_is_gone_and_may_come_back(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    bench.say(room, ann, &["1"]).await;
    let change = async |writes: Writes| {
        let batch = bench.begin(room, &[ann]).await;
        batch.commit(writes).await.expect("commits");
    };
    change(Writes { left: vec![(room, ben)], ..Writes::default() }).await;
    assert_eq!(bench.store.standing(room, ben).await, Ok(None));
    assert_eq!(bench.store.rooms_of(ben).await, Ok(Vec::new()));
    change(Writes { joined: vec![(room, ben, Role::Admin, Seq(1))], ..Writes::default() }).await;
    assert_eq!(bench.store.standing(room, ben).await.expect("reads").expect("a member").role, Role::Admin);
    // Removed and added again in one batch: the new membership stands.
    let both = Writes { left: vec![(room, ben)], joined: vec![(room, ben, Role::Member, Seq(1))], ..Writes::default() };
    change(both).await;
    let state = &bench.store.rooms_of(ben).await.expect("reads")[0];
    assert_eq!((state.role, state.unread), (Role::Member, 0));
}

async fn titles_change(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let batch = bench.begin(room, &[ann]).await;
    let titles = vec![(room, "one".to_owned(), Timestamp(1)), (room, "two".to_owned(), Timestamp(2))];
    batch.commit(Writes { titles, ..Writes::default() }).await.expect("commits");
    assert_eq!(bench.room(room).await.title.as_deref(), Some("two"));
    let other = bench.group(&[ann]).await;
    let scope = Scope { titled: vec![room, other, room], ..Scope::default() };
    let batch = bench.store.begin(&scope).await.expect("begins");
    assert_eq!(batch.loaded.titled, [(room, Timestamp(2))].into(), "the other has the title it was made with");
}

async fn an_empty_scope_and_empty_writes_do_no_harm(bench: Bench) {
    let batch = bench.store.begin(&Scope::default()).await.expect("begins");
    batch.commit(Writes::default()).await.expect("commits");
}

async fn a_text_no_database_can_hold_is_rejected_and_not_transient(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let batch = begin(&bench.store, room, &[ann]).await.expect("begins");
    let mut draft = Draft::of(&batch, room);
    draft.message(ann, "nul\0");
    let refused = batch.commit(draft.finish()).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    bench.say(room, ann, &["others go on"]).await;
}
