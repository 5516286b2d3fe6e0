//! Messages: pages, edits, reactions, and that what was taken back is gone.

use domain::{MessageId, Rev, RoomId, Seq, Timestamp, UserId};
use protocol::{EventData, wire};
use store::{Delete, Edit, MessageRow, Page, Reaction, Writes};

use crate::bench::{Bench, Draft, NOW, deleted, edited, new_message, on_both};

const LATER: Timestamp = Timestamp(NOW.0 + 60_000);

on_both!(
    a_message_comes_back_byte_for_byte,
    history_comes_in_pages_both_ways,
    an_edit_changes_the_message_and_its_events,
    a_message_and_its_edit_may_come_in_one_batch,
    a_message_taken_back_leaves_a_tombstone_and_nothing_else,
    an_edit_does_not_bring_back_what_was_taken_back,
    reactions_are_counted_once_for_each_person,
    the_timeline_is_contiguous_and_tells_messages_as_they_now_stand,
    when_changes_happened_is_known_of_those_that_there_are,
    many_rows_with_every_character_survive,
    a_page_is_bounded_by_weight_and_never_empty,
);

async fn a_message_comes_back_byte_for_byte(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let first = bench.say(room, ann, &["first"]).await[0];
    let attachment = wire::Attachment {
        url: "https://example.com/a?b=c".into(),
        name: Some("näme.png".into()),
        size_bytes: Some(i64::MAX),
        ..Default::default()
    };
    let row = MessageRow {
        reply_to: Some(first),
        mentions: vec![ann, ben],
        attachments: vec![attachment, wire::Attachment::default()],
        kind: "IMAGE".to_owned(),
        sent_at: Timestamp(NOW.0 - 5),
        ..new_message(room, ben, "my 'name'", "<b>\"quoted\"</b> '; DROP TABLE messages; -- 👩‍👩‍👧‍👦\r\n\t\\u0041 עברית")
    };
    let batch = bench.begin(room, &[ben]).await;
    let mut draft = Draft::of(&batch, room);
    draft.row(row.clone());
    batch.commit(draft.finish()).await.expect("commits");
    let expected = MessageRow { seq: Seq(2), rev: Rev(3), ..row };
    assert_eq!(bench.message(expected.id).await, expected);
    assert_eq!(bench.store.history(room, Page::Newest, 1).await, Ok(vec![expected]));
}

async fn history_comes_in_pages_both_ways(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    bench.say(bench.group(&[ann]).await, ann, &["elsewhere"]).await;
    bench.say(room, ann, &["1", "2", "3", "4", "5", "6", "7"]).await;
    let page = async |page, limit| -> Vec<i64> {
        let rows = bench.store.history(room, page, limit).await.expect("reads");
        rows.iter().map(|row| row.seq.0).collect()
    };
    assert_eq!(page(Page::Newest, 3).await, [5, 6, 7]);
    assert_eq!(page(Page::Before(Seq(5)), 3).await, [2, 3, 4]);
    assert_eq!(page(Page::Before(Seq(2)), 3).await, [1]);
    assert_eq!(page(Page::Before(Seq(1)), 3).await, [0i64; 0]);
    assert_eq!(page(Page::After(Seq(0)), 3).await, [1, 2, 3]);
    assert_eq!(page(Page::After(Seq(5)), 3).await, [6, 7]);
    assert_eq!(page(Page::Newest, 0).await, [0i64; 0]);
    let rows = bench.store.after_seq(room, Seq(3), 2).await.expect("reads");
    assert_eq!(rows.iter().map(|row| row.content.as_str()).collect::<Vec<_>>(), ["4", "5"]);
}

async fn edit(bench: &Bench, room: RoomId, message: MessageId, contents: &[&str]) {
    let batch = bench.begin(room, &[]).await;
    let mut draft = Draft::of(&batch, room);
    for content in contents {
        draft.change(edited(room, message, content));
        draft.writes.edits.push(Edit { message, content: (*content).to_owned(), at: LATER });
    }
    batch.commit(draft.finish()).await.expect("commits");
}

async fn take_back(bench: &Bench, room: RoomId, message: MessageId) {
    let batch = bench.begin(room, &[]).await;
    let mut draft = Draft::of(&batch, room);
    draft.change(deleted(room, message));
    draft.writes.deletes.push(Delete { message, at: LATER });
    batch.commit(draft.finish()).await.expect("commits");
}

async fn a_page_is_bounded_by_weight_and_never_empty(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let (heavy, light) = ("h".repeat(10_000), "l");
    bench.say(room, ann, &[light, light, heavy.as_str(), light, heavy.as_str(), heavy.as_str()]).await;
    let page = async |page, bytes| -> Vec<i64> {
        let rows = bench.store.history_within(room, page, 10, bytes).await.expect("reads");
        rows.iter().map(|row| row.seq.0).collect()
    };
    assert_eq!(page(Page::Newest, 1).await, [6], "one at least, the one next to the cursor");
    assert_eq!(page(Page::Newest, 10_600).await, [5, 6]);
    assert_eq!(page(Page::Before(Seq(5)), 5_000).await, [3, 4]);
    assert_eq!(page(Page::After(Seq(0)), 5_000).await, [1, 2, 3]);
    assert_eq!(page(Page::After(Seq(3)), 1_000_000).await, [4, 5, 6]);
    assert_eq!(page(Page::After(Seq(6)), 1).await, [] as [i64; 0]);
    let changes = async |rev, bytes| -> Vec<i64> {
        let entries = bench.store.after_rev_within(room, Rev(rev), 10, bytes).await.expect("reads");
        entries.iter().map(|entry| entry.rev.0).collect()
    };
    assert_eq!(changes(1, 1).await, [2]);
    assert_eq!(changes(1, 5_000).await, [2, 3, 4]);
    assert_eq!(changes(6, 1_000_000).await, [7]);
    assert_eq!(changes(7, 1).await, [] as [i64; 0]);
}

async fn an_edit_changes_the_message_and_its_events(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let id = bench.say(room, ann, &["one"]).await[0];
    edit(&bench, room, id, &["two", "three"]).await;
    let row = bench.message(id).await;
    assert_eq!((row.content.as_str(), row.edited_at), ("three", Some(LATER)));
    assert_eq!(row.stored_at, NOW);
    let changes = bench.store.after_rev(room, Rev(1), 10).await.expect("reads");
    assert_eq!(changes.len(), 3);
    assert_eq!(changes[0].event, EventData::MessageDelivered(row.to_wire()));
    assert_eq!(changes[2].event, edited(room, id, "three"));
}

async fn a_message_and_its_edit_may_come_in_one_batch(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let (kept, taken) = (draft.message(ann, "kept"), draft.message(ann, "taken"));
    draft.change(edited(room, kept, "changed"));
    draft.writes.edits.push(Edit { message: kept, content: "changed".to_owned(), at: LATER });
    draft.writes.reactions.push(reaction(taken, ann, "x", false));
    draft.change(deleted(room, taken));
    draft.writes.deletes.push(Delete { message: taken, at: LATER });
    batch.commit(draft.finish()).await.expect("commits");
    assert_eq!(bench.message(kept).await.content, "changed");
    assert_eq!(bench.message(taken).await.deleted_at, Some(LATER));
    let history = bench.store.history(room, Page::Newest, 10).await.expect("reads");
    assert!(history.iter().all(|row| row.reactions.is_empty()));
}

async fn a_message_taken_back_leaves_a_tombstone_and_nothing_else(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let attachment = wire::Attachment { url: "https://secret-link".into(), ..Default::default() };
    let row = MessageRow {
        attachments: vec![attachment],
        mentions: vec![ben],
        ..new_message(room, ann, "m", "secret-first")
    };
    let id = draft.row(row);
    batch.commit(draft.finish()).await.expect("commits");
    edit(&bench, room, id, &["secret-second", "secret-third"]).await;
    let reactions = vec![reaction(id, ben, "secret-emoji", false)];
    let batch = bench.begin(room, &[]).await;
    batch.commit(Writes { reactions, ..Writes::default() }).await.expect("commits");
    assert!(bench.dump().await.contains("secret-third"), "the dump sees what is there");
    take_back(&bench, room, id).await;

    let dump = bench.dump().await;
    assert!(!dump.contains("secret"), "nothing of it is left in the database");
    let told = bench.message(id).await.to_wire();
    let tombstone = wire::MessageDelivered {
        room_id: room.to_string(),
        message_id: id.to_string(),
        seq: 1,
        sender_id: ann.to_string(),
        sent_at: NOW.to_rfc3339(),
        deleted_at: Some(LATER.to_rfc3339()),
        ..Default::default()
    };
    assert_eq!(told, tombstone);
    let changes = bench.store.after_rev(room, Rev(1), 10).await.expect("reads");
    let tombstone = wire::MessageDelivered { rev: Some(2), ..tombstone };
    assert_eq!(changes[0].event, EventData::MessageDelivered(tombstone));
    assert_eq!(changes[1].event, edited(room, id, ""));
    assert_eq!(changes[3].event, deleted(room, id));
}

async fn an_edit_does_not_bring_back_what_was_taken_back(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let id = bench.say(room, ann, &["one"]).await[0];
    take_back(&bench, room, id).await;
    edit(&bench, room, id, &["two"]).await;
    let row = bench.message(id).await;
    assert_eq!((row.content.as_str(), row.deleted_at), ("", Some(LATER)));
}

fn reaction(message: MessageId, user: UserId, emoji: &str, removed: bool) -> Reaction {
    Reaction { message, user, emoji: emoji.to_owned(), removed, at: NOW }
}

async fn reactions_are_counted_once_for_each_person(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    let ids = bench.say(room, ann, &["one", "two"]).await;
    let react = async |reactions| {
        let batch = bench.begin(room, &[]).await;
        batch.commit(Writes { reactions, ..Writes::default() }).await.expect("commits");
    };
    react(vec![
        reaction(ids[0], ann, "👍", false),
        reaction(ids[0], ben, "👍", false),
        reaction(ids[0], ann, "🎉", false),
    ])
    .await;
    react(vec![reaction(ids[0], ann, "👍", false), reaction(ids[1], ben, "👀", true)]).await;
    let counts = async || -> Vec<(String, i64)> {
        let rows = bench.store.history(room, Page::Newest, 10).await.expect("reads");
        assert!(rows[1].reactions.is_empty());
        rows[0].to_wire().reactions.into_iter().map(|count| (count.emoji, count.count)).collect()
    };
    assert_eq!(counts().await, [("👍".to_owned(), 2), ("🎉".to_owned(), 1)]);
    // Given and taken back in one batch: the last one counts.
    react(vec![
        reaction(ids[0], ben, "🎉", false),
        reaction(ids[0], ben, "🎉", true),
        reaction(ids[0], ann, "👍", true),
    ])
    .await;
    assert_eq!(counts().await, [("🎉".to_owned(), 1), ("👍".to_owned(), 1)]);
}

async fn the_timeline_is_contiguous_and_tells_messages_as_they_now_stand(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let ids = bench.say(room, ann, &["1", "2", "3"]).await;
    edit(&bench, room, ids[1], &["two"]).await;
    take_back(&bench, room, ids[2]).await;
    let first = bench.store.after_rev(room, Rev::ZERO, 3).await.expect("reads");
    let rest = bench.store.after_rev(room, Rev(3), 10).await.expect("reads");
    let revs: Vec<i64> = first.iter().chain(&rest).map(|change| change.rev.0).collect();
    assert_eq!(revs, [1, 2, 3, 4, 5, 6]);
    let EventData::MessageDelivered(second) = &first[2].event else { panic!("a message") };
    assert_eq!((second.content.as_deref(), second.rev), (Some("two"), Some(3)));
    let EventData::MessageDelivered(third) = &rest[0].event else { panic!("a message") };
    assert_eq!((third.content.as_deref(), third.deleted_at.is_some()), (None, true));
    assert_eq!(bench.store.after_rev(room, Rev(6), 10).await, Ok(Vec::new()));
    assert_eq!(bench.store.after_rev(RoomId::generate(), Rev::ZERO, 10).await, Ok(Vec::new()));
}

async fn when_changes_happened_is_known_of_those_that_there_are(bench: Bench) {
    let ann = bench.user().await;
    let (one, other) = (bench.group(&[ann]).await, bench.group(&[ann]).await);
    let batch = bench.begin(one, &[ann]).await;
    let mut draft = Draft::of(&batch, one);
    draft.message(ann, "1");
    draft.message(ann, "2");
    draft.writes.events[1].at = Timestamp(NOW.0 + 5);
    batch.commit(draft.finish()).await.expect("commits");
    let asked = [(one, Rev(3)), (other, Rev(1)), (one, Rev(4)), (RoomId::generate(), Rev(1))];
    let mut happened = bench.store.happened_at(&asked).await.expect("reads");
    happened.sort_unstable();
    assert_eq!(happened, [NOW, Timestamp(NOW.0 + 5)]);
    assert_eq!(bench.store.happened_at(&[]).await, Ok(Vec::new()));
}

async fn many_rows_with_every_character_survive(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let contents: Vec<String> = (1..=1200u32)
        .map(|number| char::from_u32(number * 37 % 0xD800).filter(|c| *c != '\0').unwrap_or('x').to_string().repeat(20))
        .collect();
    bench.say(room, ann, &contents.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let rows = bench.store.after_seq(room, Seq::ZERO, 2000).await.expect("reads");
    let read: Vec<String> = rows.into_iter().map(|row| row.content).collect();
    assert_eq!(read, contents);
}
