//! Tests of the plan: order, duplicates, rights, waiting targets.

use super::*;
use domain::room::{Role, RoomKind};
use domain::{Cause, EventKind, Seq};
use protocol::VerifiedEnvelope;
use store::member::Standing;
use uuid::Uuid;

const ROOM: RoomId = RoomId(Uuid::from_u128(100));
const ANN: UserId = UserId(Uuid::from_u128(1));
const BEN: UserId = UserId(Uuid::from_u128(2));
const EVE: UserId = UserId(Uuid::from_u128(3));
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn loaded() -> Loaded {
    let mut loaded = Loaded::default();
    let head = Head { kind: RoomKind::Group, last_seq: Seq::ZERO, rev: Rev(1), epoch: Rev(1) };
    loaded.rooms.insert(ROOM, head);
    for (user, role) in [(ANN, Role::Owner), (BEN, Role::Member)] {
        loaded.standings.insert((ROOM, user), Standing { kind: RoomKind::Group, role, blocked: false });
    }
    loaded
}

fn job(actor: UserId, job_id: JobId, kind: EventKind, change: Change) -> Job {
    let event = VerifiedEnvelope {
        job_id,
        kind,
        room_id: ROOM,
        actor,
        device_id: "d".into(),
        accepted_at: NOW,
        traceparent: None,
        change,
    };
    Job { event, redelivered: false, first_failed_at: None, last_attempt: false }
}

fn send(actor: UserId, name: &str) -> Job {
    let send = wire::MessageSend {
        room_id: ROOM.to_string(),
        content: format!("content of {name}"),
        client_msg_id: name.into(),
        ..Default::default()
    };
    job(actor, MessageId::of(actor, name).into(), EventKind::MessageSend, Change::MessageSend(send))
}

fn edit(actor: UserId, target: MessageId, content: &str) -> Job {
    let edit = wire::MessageEdit { room_id: ROOM.to_string(), message_id: target.to_string(), content: content.into() };
    job(actor, JobId::generate(), EventKind::MessageEdit, Change::MessageEdit(edit))
}

fn plan(jobs: &[Job]) -> Plan {
    let mut planner = Planner::new(loaded(), NOW);
    for job in jobs {
        planner.add(job);
    }
    planner.finish()
}

fn room_revs(plan: &Plan) -> Vec<i64> {
    let room = plan.deliveries.iter().filter(|planned| planned.channel == Channel::Room(ROOM));
    room.filter_map(|planned| planned.delivery.rev.map(|rev| rev.0)).collect()
}

#[test]
fn seq_and_rev_follow_the_order_of_the_batch_without_a_gap() {
    let plan = plan(&[send(ANN, "a"), send(BEN, "b"), send(ANN, "c")]);
    let seqs: Vec<i64> = plan.writes.messages.iter().map(|row| row.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(room_revs(&plan), [2, 3, 4]);
    assert_eq!(plan.writes.heads.len(), 1);
    assert_eq!((plan.writes.heads[0].1.last_seq, plan.writes.heads[0].1.rev), (Seq(3), Rev(4)));
}

#[test]
fn one_client_msg_id_in_one_batch_is_one_message_told_twice() {
    let plan = plan(&[send(ANN, "a"), send(ANN, "a")]);
    assert_eq!(plan.writes.messages.len(), 1);
    assert_eq!(plan.outcomes, [Outcome::Stored, Outcome::Duplicate]);
    assert_eq!(room_revs(&plan), [2, 2]);
}

#[test]
fn who_is_no_member_any_more_is_told_and_the_refusal_is_recorded() {
    let plan = plan(&[send(EVE, "e"), send(ANN, "a")]);
    assert_eq!(plan.outcomes, [Outcome::Refused(Code::NotFound), Outcome::Stored]);
    assert_eq!(plan.writes.refused.len(), 1);
    let told = &plan.deliveries[0];
    assert_eq!(told.channel, Channel::User(EVE));
    assert!(
        matches!(&told.delivery.event, EventData::MessageFailed(failed) if failed.client_msg_id.as_deref() == Some("e"))
    );
    assert_eq!(plan.writes.messages[0].seq, Seq(1), "a refusal takes no place in the order");
}

#[test]
fn a_kick_and_a_message_behind_it_in_one_batch_refuse_the_message() {
    let kick = wire::MemberRemove { user_id: BEN.to_string() };
    let kick = job(ANN, JobId::generate(), EventKind::MemberRemove, Change::MemberRemove(kick));
    let plan = plan(&[kick, send(BEN, "late")]);
    assert_eq!(plan.outcomes, [Outcome::Stored, Outcome::Refused(Code::NotFound)]);
    assert_eq!(plan.writes.left, [(ROOM, BEN)]);
    assert_eq!(plan.writes.heads[0].1.epoch, Rev(2));
}

#[test]
fn an_edit_sees_a_message_of_its_own_batch_and_the_last_edit_stands() {
    let id = MessageId::of(ANN, "a");
    let plan = plan(&[send(ANN, "a"), edit(ANN, id, "one"), edit(ANN, id, "two")]);
    assert_eq!(plan.outcomes, [Outcome::Stored, Outcome::Stored, Outcome::Stored]);
    assert_eq!(plan.writes.edits.len(), 1);
    assert_eq!(plan.writes.edits[0].content, "two");
    assert_eq!(room_revs(&plan), [2, 3, 4]);
}

#[test]
fn nobody_edits_what_another_wrote() {
    let plan = plan(&[send(ANN, "a"), edit(BEN, MessageId::of(ANN, "a"), "mine")]);
    assert_eq!(plan.outcomes[1], Outcome::Refused(Code::Forbidden));
    assert!(plan.writes.edits.is_empty());
}

#[test]
fn each_refusal_names_the_event_that_was_acked() {
    let id = MessageId::of(ANN, "a");
    let edits = [edit(BEN, id, "one"), edit(BEN, id, "other")];
    let plan = plan(&[send(ANN, "a"), edits[0].clone(), edits[1].clone()]);
    let failed = plan.deliveries.iter().filter_map(|planned| match &planned.delivery.event {
        EventData::MessageFailed(failed) => Some((failed.message_id.clone(), failed.job_id.clone())),
        _ => None,
    });
    let expected = edits.map(|edit| (id.to_string(), Some(edit.event.job_id.to_string())));
    assert_eq!(failed.collect::<Vec<_>>(), expected);
}

#[test]
fn an_edit_waits_for_its_target_and_gives_up_at_the_end_of_the_ladder() {
    let mut late = edit(ANN, MessageId::of(ANN, "never"), "x");
    assert!(matches!(
        plan(std::slice::from_ref(&late)).outcomes[0],
        Outcome::Failed { cause: Cause::TargetMissing, .. }
    ));
    late.last_attempt = true;
    assert_eq!(plan(&[late]).outcomes[0], Outcome::Refused(Code::NotFound));
}

#[test]
fn a_retried_edit_does_not_overwrite_what_came_after_its_first_failure() {
    let id = MessageId::of(ANN, "a");
    let mut retried = edit(ANN, id, "old");
    retried.first_failed_at = Some(Timestamp(NOW.0 - 1000));
    let plan = plan(&[send(ANN, "a"), edit(ANN, id, "new"), retried]);
    assert_eq!(plan.outcomes[2], Outcome::Refused(Code::Conflict));
    assert_eq!(plan.writes.edits[0].content, "new");
}

#[test]
fn a_redelivered_refusal_is_told_again_and_not_judged_anew() {
    let mut planner = Planner::new(loaded(), NOW);
    let job = send(ANN, "a");
    planner.loaded.receipts.insert(job.event.job_id, Receipt::Refused(Code::Forbidden));
    planner.add(&job);
    let plan = planner.finish();
    assert_eq!(plan.outcomes, [Outcome::Duplicate]);
    assert!(plan.writes.messages.is_empty() && plan.writes.refused.is_empty());
    assert_eq!(plan.deliveries[0].channel, Channel::User(ANN));
}

#[test]
fn deleting_erases_an_edit_of_the_same_batch() {
    let id = MessageId::of(ANN, "a");
    let delete = wire::MessageDelete { room_id: ROOM.to_string(), message_id: id.to_string(), for_everyone: true };
    let delete = job(ANN, JobId::generate(), EventKind::MessageDelete, Change::MessageDelete(delete));
    let plan = plan(&[send(ANN, "a"), edit(ANN, id, "x"), delete, edit(ANN, id, "y")]);
    assert!(plan.writes.edits.is_empty());
    assert_eq!(plan.writes.deletes.len(), 1);
    assert_eq!(plan.outcomes[3], Outcome::Refused(Code::NotFound));
}

#[test]
fn taking_back_what_was_taken_back_already_leaves_a_receipt_too() {
    let id = MessageId::of(ANN, "a");
    let delete = || {
        let delete = wire::MessageDelete { room_id: ROOM.to_string(), message_id: id.to_string(), for_everyone: true };
        job(ANN, JobId::generate(), EventKind::MessageDelete, Change::MessageDelete(delete))
    };
    let again = delete();
    let plan = plan(&[send(ANN, "a"), delete(), again.clone()]);
    assert_eq!((plan.writes.deletes.len(), room_revs(&plan).len()), (1, 2));
    assert_eq!(plan.writes.idle.iter().map(|idle| idle.0).collect::<Vec<_>>(), [again.event.job_id]);
}

#[test]
fn who_joins_is_told_first_and_then_the_room() {
    let add = wire::MemberAdd { user_ids: vec![EVE.to_string(), BEN.to_string()], role: "member".into() };
    let add = job(ANN, JobId::generate(), EventKind::MemberAdd, Change::MemberAdd(add));
    let plan = plan(&[add]);
    let channels: Vec<Channel> = plan.deliveries.iter().map(|planned| planned.channel).collect();
    assert_eq!(channels, [Channel::User(EVE), Channel::Room(ROOM)]);
    assert_eq!(plan.writes.joined, [(ROOM, EVE, Role::Member, Seq::ZERO)]);
}

fn react(actor: UserId, target: MessageId, emoji: &str) -> Job {
    let (room_id, message_id) = (ROOM.to_string(), target.to_string());
    let react = wire::MessageReact { room_id, message_id, emoji: emoji.into(), remove: false };
    job(actor, JobId::generate(), EventKind::MessageReact, Change::MessageReact(react))
}

fn remove(actor: UserId, user: UserId) -> Job {
    let remove = wire::MemberRemove { user_id: user.to_string() };
    job(actor, JobId::generate(), EventKind::MemberRemove, Change::MemberRemove(remove))
}

fn add(actor: UserId, users: &[UserId]) -> Job {
    let user_ids = users.iter().map(UserId::to_string).collect();
    let add = wire::MemberAdd { user_ids, role: "member".into() };
    job(actor, JobId::generate(), EventKind::MemberAdd, Change::MemberAdd(add))
}

#[test]
fn a_job_that_is_twice_in_one_batch_is_stored_once() {
    let id = MessageId::of(ANN, "a");
    let delete = wire::MessageDelete { room_id: ROOM.to_string(), message_id: id.to_string(), for_everyone: true };
    let update = wire::RoomUpdate { title: Some("new".into()) };
    let twice = [
        react(ANN, id, "👍"),
        edit(ANN, id, "x"),
        job(ANN, JobId::generate(), EventKind::RoomUpdate, Change::RoomUpdate(update)),
        add(ANN, &[EVE]),
        remove(ANN, BEN),
        job(ANN, JobId::generate(), EventKind::MessageDelete, Change::MessageDelete(delete)),
    ];
    for job in twice {
        let kind = job.event.kind;
        let plan = plan(&[send(ANN, "a"), job.clone(), job]);
        assert_eq!(plan.outcomes, [Outcome::Stored, Outcome::Stored, Outcome::Duplicate], "{kind}");
        assert_eq!(plan.writes.events.len(), 2, "{kind}");
        assert!(plan.writes.refused.is_empty(), "{kind}");
        assert_eq!(room_revs(&plan), [2, 3, 3], "{kind}: told again under its own number");
    }
}

#[test]
fn adding_who_is_there_already_leaves_a_receipt_so_that_a_repeat_adds_nobody() {
    let job = add(ANN, &[BEN]);
    let first = plan(&[job.clone(), remove(ANN, BEN), job.clone()]);
    assert_eq!(first.outcomes, [Outcome::Stored, Outcome::Stored, Outcome::Duplicate]);
    assert_eq!(first.writes.idle, [(job.event.job_id, ROOM, NOW)]);
    assert!(first.writes.joined.is_empty());

    // Received again after the commit.
    let mut planner = Planner::new(loaded(), NOW);
    planner.loaded.standings.remove(&(ROOM, BEN));
    planner.loaded.receipts.insert(job.event.job_id, Receipt::Idle);
    planner.add(&job);
    let again = planner.finish();
    assert_eq!(again.outcomes, [Outcome::Duplicate]);
    assert!(again.writes.joined.is_empty() && again.deliveries.is_empty());
}

#[test]
fn one_person_gives_a_message_a_bounded_number_of_different_emoji() {
    let id = MessageId::of(ANN, "a");
    let mut planner = Planner::new(loaded(), NOW);
    let given = (1..domain::limits::REACTIONS_PER_USER).map(|number| format!("e{number}")).collect();
    planner.loaded.reactions.insert((id, BEN), given);
    let mut taken_back = react(BEN, id, "e1");
    if let Change::MessageReact(react) = &mut taken_back.event.change {
        react.remove = true;
    }
    let jobs = [
        send(ANN, "a"),
        react(BEN, id, "last"),
        react(BEN, id, "one more"),
        react(BEN, id, "e1"),
        react(ANN, id, "one more"),
        taken_back,
        react(BEN, id, "one more"),
    ];
    for job in &jobs {
        planner.add(job);
    }
    let stored: Vec<bool> = planner.finish().outcomes.iter().map(|outcome| *outcome == Outcome::Stored).collect();
    assert_eq!(stored, [true, true, false, true, true, true, true]);
}

#[test]
fn an_edit_that_waits_for_its_target_does_not_overwrite_the_one_behind_it() {
    let id = MessageId::of(ANN, "a");
    let mut first = edit(ANN, id, "first");
    let batch = plan(&[first.clone(), send(ANN, "a"), edit(ANN, id, "second")]);
    let Outcome::Failed { at, .. } = &batch.outcomes[0] else { panic!("its target is not there yet") };
    first.first_failed_at = Some(*at);
    let mut planner = Planner::new(loaded(), NOW);
    let mut row = batch.writes.messages[0].clone();
    (row.content, row.edited_at) = ("second".into(), Some(batch.writes.edits[0].at));
    planner.loaded.messages.insert(id, row);
    planner.add(&first);
    assert_eq!(planner.finish().outcomes, [Outcome::Refused(Code::Conflict)]);
}

#[test]
fn a_reaction_that_changes_nothing_takes_no_number() {
    let id = MessageId::of(ANN, "a");
    let mut never_given = react(BEN, id, "👎");
    if let Change::MessageReact(react) = &mut never_given.event.change {
        react.remove = true;
    }
    let plan = plan(&[send(ANN, "a"), react(BEN, id, "👍"), react(BEN, id, "👍"), never_given]);
    assert_eq!(plan.outcomes, vec![Outcome::Stored; 4]);
    assert_eq!(room_revs(&plan), [2, 3]);
    assert_eq!(plan.writes.idle.len(), 2);
}

#[test]
fn a_name_that_was_used_in_another_room_is_refused_and_a_message_of_another_room_is_not_there() {
    let mut planner = Planner::new(loaded(), NOW);
    planner.add(&send(ANN, "a"));
    let elsewhere = RoomId::generate();
    planner.loaded.messages.values_mut().for_each(|row| row.room = elsewhere);
    let id = MessageId::of(ANN, "a");
    planner.add(&send(ANN, "a"));
    planner.add(&react(BEN, id, "👍"));
    planner.add(&react(BEN, MessageId::of(ANN, "nowhere"), "👍"));
    let plan = planner.finish();
    assert_eq!(plan.outcomes[1], Outcome::Refused(Code::Conflict));
    assert!(plan.writes.refused.is_empty(), "its receipt is the message");
    let told = plan.deliveries.iter().find(|planned| planned.channel == Channel::User(ANN)).expect("told");
    assert!(matches!(&told.delivery.event, EventData::MessageFailed(failed) if failed.code == "CONFLICT"));
    assert_eq!(plan.outcomes[2], plan.outcomes[3], "both wait, so that time tells nothing");
}

fn title(actor: UserId, title: &str) -> Job {
    let update = wire::RoomUpdate { title: Some(title.into()) };
    job(actor, JobId::generate(), EventKind::RoomUpdate, Change::RoomUpdate(update))
}

#[test]
fn a_title_that_failed_does_not_take_the_place_of_one_that_came_after_it() {
    let mut late = title(ANN, "old");
    late.first_failed_at = Some(Timestamp(NOW.0 - 1000));
    let in_one_batch = plan(&[title(ANN, "new"), late.clone()]);
    assert_eq!(in_one_batch.outcomes, [Outcome::Stored, Outcome::Refused(Code::Conflict)]);
    assert_eq!(in_one_batch.writes.titles, [(ROOM, "new".to_owned(), NOW)]);

    let outcome = |titled_at: i64| {
        let mut planner = Planner::new(loaded(), NOW);
        planner.loaded.titled.insert(ROOM, Timestamp(titled_at));
        planner.add(&late);
        planner.finish().outcomes.remove(0)
    };
    assert_eq!(outcome(NOW.0 - 1000), Outcome::Refused(Code::Conflict), "in the batch in which it failed");
    assert_eq!(outcome(NOW.0 - 1001), Outcome::Stored, "what came before it is older");
    assert_eq!(plan(&[late]).outcomes, [Outcome::Stored], "nothing came since");
}
