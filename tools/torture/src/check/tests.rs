//! Histories in which one promise is broken, each found by the check of that promise.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::history::{Answer, Change, Message, Seen, Span, Try};
use crate::truth::{DeadLetter, EventRow, MessageRow};
use crate::view::View;
use crate::world::Scale;

/// Two people in a room with everybody and in one whose guest is one of them; somebody says two things in
/// the first, one after the other.
struct Case {
    world: World,
    senders: Vec<Sender>,
    devices: Vec<(usize, Notes)>,
    truth: Truth,
    incidents: Vec<Incident>,
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn delivered(seq: i64) -> Value {
    let (name, rev) = (format!("0.{seq}"), seq + 1);
    let content = format!("{name} says something");
    json!({"messageId": id(seq as u128), "seq": seq, "rev": rev, "clientMsgId": name, "content": content})
}

fn page(last: i64) -> Value {
    let item = |seq: i64| json!({"event": "message.delivered", "rev": seq + 1, "data": delivered(seq)});
    json!({"items": (1..=last).map(item).collect::<Vec<_>>(), "rev": last + 1, "complete": true})
}

fn said(number: u64) -> Message {
    let this = Try { at: At(number * 100), connection: 1, frame: number as i64 };
    let answer = Answer::Queued { at: At(number * 100 + 10), of: Some(this), job: id(number.into()).to_string() };
    Message { name: format!("0.{number}"), room: 0, tries: vec![this], answer }
}

impl Case {
    fn new() -> Self {
        let world = World::imagine(Scale { users: 2, rooms: 1, members: 2 }, 1, str::to_owned);
        let sender: Uuid = world.users[0].id.parse().expect("an id");
        let row = |seq: i64| MessageRow {
            room: 0,
            seq,
            id: id(seq as u128),
            sender,
            name: format!("0.{seq}"),
            content: format!("0.{seq} says something"),
            deleted: false,
        };
        let event = |(room, rev): (usize, i64)| EventRow { room, rev, wall_ms: 0, job: None };
        let mut truth = Truth {
            messages: vec![row(1), row(2)],
            events: [(0, 1), (0, 2), (0, 3), (1, 1)].map(event).to_vec(),
            ..Truth::default()
        };
        truth.heads = [(0, (2, 3)), (1, (0, 1))].into();
        truth.listed = [(0, vec![delivered(1), delivered(2)]), (1, vec![])].into();
        for (room, user) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            truth.members.insert((room, world.users[user].id.clone()), 0);
        }
        let devices = [0, 1].map(|user| (user, Self::notes(&world, user, 2))).into();
        let senders = vec![Sender { messages: vec![said(1), said(2)], ..Default::default() }, Sender::default()];
        Self { world, senders, devices, truth, incidents: Vec::new() }
    }

    fn notes(world: &World, user: usize, last: i64) -> Notes {
        let me = &world.users[user].id;
        let (mut notes, mut view) = (Notes::default(), View::new(me));
        notes.log.spans.push(Span { from: At(0), to: None });
        view.page(&page(last), At(5), notes.log.seen.entry(0).or_default()).expect("fits");
        notes.views = [(0, view), (1, View::new(me))].into();
        notes
    }

    fn broken(&self) -> Vec<&'static str> {
        let Self { world, senders, devices, truth, incidents } = self;
        let (violations, _) = judge(&Evidence { world, senders, devices, truth, incidents, late_after_ms: 1_000 });
        let mut promises: Vec<&str> = violations.iter().map(|violation| violation.promise).collect();
        promises.dedup();
        promises
    }

    fn view(&mut self, device: usize) -> &mut View {
        self.devices[device].1.views.get_mut(&0).expect("everybody's room")
    }

    /// The guest of room 1 is removed with its second change, is added again with the fourth, and learns of
    /// the third at some time.
    fn with_a_guest_who_saw(mut self, seen: Seen) -> Self {
        let guest = self.world.rooms[1].guest.expect("a guest");
        let who = self.world.users[guest].id.clone();
        let job = domain::JobId(id(77)).part(who.parse().expect("an id")).0;
        let change = |rev: i64, name: &str| (rev, name.to_owned(), json!({"rev": rev, "userId": who}));
        self.truth.timeline =
            [(1, vec![change(2, "room.memberLeft"), change(3, "room.updated"), change(4, "room.memberJoined")])].into();
        for rev in 2..=4 {
            let job = (rev == 4).then_some(job);
            self.truth.events.push(EventRow { room: 1, rev, wall_ms: 0, job });
        }
        self.truth.heads.insert(1, (0, 4));
        let answer = Answer::Queued { at: At(9_001), of: None, job: id(77).to_string() };
        let added = Change { what: "room.memberAdd", room: 1, message: None, at: At(9_000), answer };
        self.senders.push(Sender { changes: vec![added], ..Default::default() });
        for (user, notes) in &mut self.devices {
            let seen = if *user == guest { vec![seen] } else { vec![Seen { rev: 2, at: At(100), live: true }] };
            notes.log.seen.insert(1, seen);
            notes.views.remove(&1);
        }
        self
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(Case::new().broken(), Vec::<&str>::new());
}

#[test]
fn a_what_was_acked_and_is_nowhere_is_found() {
    let mut case = Case::new();
    case.senders[0].messages.push(said(3));
    assert_eq!(case.broken(), ["a"]);
    case.truth.dead.push(DeadLetter { job: id(3).to_string(), cause: "crashes".to_owned() });
    assert_eq!(case.broken(), Vec::<&str>::new());
    case.truth.refused.insert(id(3), "FORBIDDEN".to_owned());
    assert_eq!(case.broken(), ["a"], "two outcomes");
    case.truth.dead.clear();
    assert_eq!(case.broken(), ["a"], "its sender was not told");
    case.senders[0].failed.insert((id(3).to_string(), "FORBIDDEN".to_owned()));
    assert_eq!(case.broken(), Vec::<&str>::new());
}

#[test]
fn b_a_message_that_is_stored_twice_is_found() {
    let mut case = Case::new();
    case.truth.messages[1].name = "0.1".to_owned();
    assert!(case.broken().contains(&"b"));
    case.truth.messages[1].id = id(1);
    assert!(case.broken().contains(&"b"));
}

#[test]
fn c_a_gap_is_found() {
    let mut case = Case::new();
    case.truth.events[2].rev = 4;
    assert!(case.broken().contains(&"c"));
    let mut case = Case::new();
    case.truth.heads.insert(1, (1, 1));
    assert!(case.broken().contains(&"c"));
}

#[test]
fn d_a_client_that_lacks_something_or_has_something_else_is_found() {
    let mut case = Case::new();
    case.devices[1].1 = Case::notes(&case.world, 1, 1);
    assert_eq!(case.broken(), ["d"]);
    let mut case = Case::new();
    case.view(0).messages.get_mut(&1).expect("there").id = id(9).to_string();
    assert_eq!(case.broken(), ["d"]);
    let mut case = Case::new();
    case.devices[0].1.log.wrong("rev 5 came twice".to_owned());
    assert_eq!(case.broken(), ["d"]);
}

#[test]
fn e_what_was_said_later_and_stands_earlier_is_found() {
    let mut case = Case::new();
    case.senders[0].messages.swap(0, 1);
    let ids = [1, 2].map(|number| id(number).to_string());
    for (message, other) in case.senders[0].messages.iter_mut().zip(ids) {
        if let Answer::Queued { job, .. } = &mut message.answer {
            *job = other;
        }
    }
    assert_eq!(case.broken(), ["e"]);
}

#[test]
fn f_what_a_guest_learns_after_leaving_is_found() {
    let late = Case::new().with_a_guest_who_saw(Seen { rev: 3, at: At(8_999), live: false });
    assert_eq!(late.broken(), ["f"]);
    let back = Case::new().with_a_guest_who_saw(Seen { rev: 3, at: At(9_100), live: false });
    assert_eq!(back.broken(), Vec::<&str>::new());
}

#[test]
fn g_what_does_not_converge_is_found() {
    let mut case = Case::new();
    case.view(0).messages.get_mut(&1).expect("there").content = "0.1 says something else".to_owned();
    assert_eq!(case.broken(), ["g"]);
    let mut case = Case::new();
    case.truth.reactions.insert((id(1).to_string(), case.world.users[1].id.clone(), "👍".to_owned()));
    assert_eq!(case.broken(), ["g"]);
    let mut case = Case::new();
    let reader = (0, case.world.users[1].id.clone());
    case.truth.members.insert(reader, 2);
    assert_eq!(case.broken(), ["g"]);
}

#[test]
fn h_a_late_delivery_is_found_and_trouble_excuses_it() {
    let mut case = Case::new();
    let late = Seen { rev: 3, at: At(5_000), live: true };
    case.devices[0].1.log.seen.insert(0, vec![late]);
    assert_eq!(case.broken(), ["h"]);
    let what = "a fault".to_owned();
    case.incidents.push(Incident { what, from: At(100), to: At(3_000), ready: Some(At(4_500)) });
    assert_eq!(case.broken(), Vec::<&str>::new());
}
