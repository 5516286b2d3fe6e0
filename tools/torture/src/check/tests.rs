//! Histories in which one promise is broken, each found by the check of that promise.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::history::{API, Answer, Change, Failure, Message, Reach, Seen, Span, Trouble, Try, Wish};
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
        let event = |(room, rev): (usize, i64)| {
            let message = (room == 0 && rev > 1).then(|| id(rev as u128 - 1));
            EventRow { room, rev, wall_ms: 0, message, job: None }
        };
        let mut truth = Truth {
            messages: vec![row(1), row(2)],
            events: [(0, 1), (0, 2), (0, 3), (1, 1)].map(event).to_vec(),
            ..Truth::default()
        };
        truth.heads = [(0, (2, 3)), (1, (0, 1))].into();
        truth.listed = [((0, 0), vec![delivered(1), delivered(2)]), ((0, 1), vec![])].into();
        for (room, user) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            truth.members.insert((room, world.users[user].id.clone()), 0);
        }
        for room in [0, 1] {
            truth.members.insert((room, world.owner.id.clone()), 0);
        }
        let devices = [0, 1].map(|user| (user, Self::notes(&world, user, 2))).into();
        let senders = vec![Sender { messages: vec![said(1), said(2)], ..Default::default() }, Sender::default()];
        Self { world, senders, devices, truth, incidents: Vec::new() }
    }

    fn notes(world: &World, user: usize, last: i64) -> Notes {
        let me = &world.users[user].id;
        let (mut notes, mut view) = (Notes::default(), View::new(me));
        notes.log.spans.push(Span { from: At(0), to: None, silent: false, gateway: 0 });
        view.page(&page(last), 0, At(5), notes.log.seen.entry(0).or_default()).expect("fits");
        notes.views = [(0, view), (1, View::new(me))].into();
        notes
    }

    fn broken(&self) -> Vec<&'static str> {
        let Self { world, senders, devices, truth, incidents } = self;
        let evidence = Evidence { world, senders, devices, truth, incidents, late_after_ms: 1_000, clocks_ms: 0 };
        let Judgement { violations, .. } = judge(&evidence);
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
        for (rev, job) in [(2, id(76)), (3, id(78)), (4, job)] {
            self.truth.events.push(EventRow { room: 1, rev, wall_ms: 0, message: None, job: Some(job) });
        }
        self.truth.heads.insert(1, (0, 4));
        self.truth.titles.insert(1, "title".to_owned());
        let asked = |wish: Wish, at: u64, job: u128| {
            let answer = Answer::Queued { at: At(at + 1), of: None, job: id(job).to_string() };
            Change { wish, room: 1, at: At(at), by: None, answer }
        };
        let changes = vec![
            asked(Wish::Remove, 50, 76),
            asked(Wish::Rename("title".to_owned()), 60, 78),
            asked(Wish::Add, 9_000, 77),
        ];
        self.senders.push(Sender { changes, ..Default::default() });
        for (user, notes) in &mut self.devices {
            let seen = if *user == guest { vec![seen] } else { vec![Seen { rev: 2, at: At(100), live: true }] };
            notes.log.seen.insert(1, seen);
            notes.views.remove(&1);
        }
        self
    }

    /// User 0 asked for a change of the first message, which was accepted and told everybody.
    fn with(mut self, wish: Wish) -> Self {
        let (job, by) = (id(50), Some(Try { at: At(9_000), connection: 1, frame: 9 }));
        let answer = Answer::Queued { at: At(9_001), of: None, job: job.to_string() };
        let mut data = json!({"rev": 4, "messageId": id(1).to_string(), "userId": self.world.users[0].id});
        match &wish {
            Wish::Edit { content, .. } => data["content"] = content.as_str().into(),
            Wish::React { emoji, remove, .. } => {
                (data["emoji"], data["removed"]) = (emoji.as_str().into(), (*remove).into());
            }
            _ => {}
        }
        self.truth.events.push(EventRow { room: 0, rev: 4, wall_ms: 0, message: Some(id(1)), job: Some(job) });
        self.truth.events.sort_by_key(|event| (event.room, event.rev));
        self.truth.heads.insert(0, (2, 4));
        self.truth.timeline.insert(0, vec![(4, wish.event().to_owned(), data.clone())]);
        for device in 0..self.devices.len() {
            let view = self.view(device);
            view.connected(Some(3));
            view.page(&json!({"items": [], "rev": 3, "complete": true}), 0, At(5), &mut Vec::new()).expect("fits");
            view.live(wish.event(), &data, At(6), &mut Vec::new()).expect("is next");
        }
        self.senders[0].changes.push(Change { wish, room: 0, at: At(9_000), by, answer });
        self
    }

    /// What the first message says in the store.
    fn stores(mut self, content: &str) -> Self {
        self.truth.messages[0].content = content.to_owned();
        self.truth.listed.get_mut(&(0, 0)).expect("a list")[0]["content"] = content.into();
        self
    }

    fn edited() -> Self {
        Self::new().with(Wish::Edit { message: id(1).to_string(), content: "0.1 is edited".to_owned() })
    }

    fn struck(mut self, delays: Reach, blinds: Reach, from: u64, ready: u64) -> Self {
        let (what, from, ready) = ("a fault".to_owned(), At(from), At(ready));
        let (refuses, silences, to, ready) = (delays.clone(), blinds.clone(), ready, Some(ready));
        self.incidents.push(Incident { what, delays, blinds, refuses, silences, from, to, ready });
        self
    }
}

const NOTHING: [&str; 0] = [];

fn failure(job: u128, message: u128) -> Failure {
    Failure { job: id(job).to_string(), message: id(message).to_string(), code: "FORBIDDEN".to_owned() }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(Case::new().broken(), NOTHING);
}

#[test]
fn a_what_was_acked_and_is_nowhere_is_found() {
    let mut case = Case::new();
    case.senders[0].messages.push(said(3));
    assert_eq!(case.broken(), ["a"]);
}

#[test]
fn a_a_refusal_needs_a_reason_and_its_sender_is_told() {
    let guest = Case::new().world.rooms[1].guest.expect("a guest");
    let refused = |room: usize, told: bool| {
        let mut case = Case::new();
        case.senders[guest].messages.push(Message { room, ..said(3) });
        case.truth.refused.insert(id(3), "FORBIDDEN".to_owned());
        if told {
            case.senders[guest].failed.insert(failure(3, 3));
        }
        case.broken()
    };
    assert_eq!(refused(1, true), NOTHING);
    assert_eq!(refused(1, false), ["a"], "its sender was not told");
    assert_eq!(refused(0, true), ["a"], "who is no guest may speak");
}

#[test]
fn a_a_change_of_what_is_there_may_not_be_refused_at_the_edge() {
    let mut case = Case::new();
    let (wish, answer) = (Wish::Delete { message: id(1).to_string() }, Answer::Refused("NOT_FOUND".to_owned()));
    case.senders[0].changes.push(Change { wish, room: 0, at: At(9_000), by: None, answer });
    assert_eq!(case.broken(), ["a"]);
}

#[test]
fn a_what_is_given_up_though_it_is_possible_is_found() {
    let mut case = Case::new();
    case.truth.dead.push(DeadLetter { job: id(9).to_string(), cause: "bug".to_owned() });
    assert_eq!(case.broken(), ["a"]);
}

#[test]
fn a_whoever_is_told_of_a_failure_that_was_none_is_found() {
    let mut case = Case::new();
    case.senders[0].failed.insert(failure(1, 1));
    assert_eq!(case.broken(), ["a"]);
}

#[test]
fn a_of_two_refusals_about_one_message_each_is_told() {
    let told = |jobs: &[u128]| {
        let mut case = Case::new();
        let guest = case.world.rooms[1].guest.expect("a guest");
        let wish = Wish::Edit { message: id(1).to_string(), content: "other".to_owned() };
        for job in [50, 51] {
            let answer = Answer::Queued { at: At(9_001), of: None, job: id(job).to_string() };
            case.senders[guest].changes.push(Change { wish: wish.clone(), room: 1, at: At(9_000), by: None, answer });
            case.truth.refused.insert(id(job), "FORBIDDEN".to_owned());
        }
        case.senders[guest].failed.extend(jobs.iter().map(|job| failure(*job, 1)));
        case.broken()
    };
    assert_eq!(told(&[50, 51]), NOTHING);
    assert_eq!(told(&[50]), ["a"], "one for both");
}

#[test]
fn a_a_change_that_is_said_to_change_nothing_and_would_is_found() {
    let mut case = Case::new();
    let wish = Wish::React { message: id(1).to_string(), emoji: "👍".to_owned(), remove: false };
    let answer = Answer::Queued { at: At(9_001), of: None, job: id(50).to_string() };
    case.senders[0].changes.push(Change { wish, room: 0, at: At(9_000), by: None, answer });
    case.truth.refused.insert(id(50), String::new());
    assert_eq!(case.broken(), ["a"]);
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
fn d_what_nobody_asked_for_is_found() {
    assert_eq!(Case::edited().stores("0.1 is edited").broken(), NOTHING);
    let mut case = Case::edited().stores("0.1 is edited");
    case.senders[0].changes.clear();
    assert_eq!(case.broken(), ["d"]);
    let mut case = Case::new().stores("0.1 says something else");
    for device in 0..2 {
        case.view(device).messages.get_mut(&1).expect("there").content = "0.1 says something else".to_owned();
    }
    assert_eq!(case.broken(), ["d"], "all agree, but nobody said that");
    let mut case = Case::new();
    case.truth.messages[0].sender = case.world.users[1].id.parse().expect("an id");
    assert!(case.broken().contains(&"d"), "somebody else said it");
}

#[test]
fn g_what_was_asked_for_and_is_not_there_is_found() {
    assert!(Case::edited().broken().contains(&"d"), "the edit");
    let reaction = Wish::React { message: id(1).to_string(), emoji: "👍".to_owned(), remove: false };
    let case = Case::new().with(reaction.clone());
    assert_eq!(case.broken(), ["g"], "the reaction");
    let mut case = Case::new().with(reaction);
    case.truth.reactions.insert((id(1).to_string(), case.world.users[0].id.clone(), "👍".to_owned()));
    case.truth.listed.get_mut(&(0, 0)).expect("a list")[0]["reactions"] = json!([{"emoji": "👍", "count": 1}]);
    assert_eq!(case.broken(), NOTHING);
    let mut case = Case::new();
    case.truth.titles.insert(0, "a title".to_owned());
    assert_eq!(case.broken(), ["g"]);
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
    assert!(case.broken().contains(&"e"));
}

#[test]
fn e_an_edit_that_was_asked_for_later_and_stands_earlier_is_found() {
    let case = |at: u64| {
        let mut case = Case::edited().stores("0.1 is edited");
        case.truth.events.insert(4, EventRow { room: 0, rev: 5, wall_ms: 0, message: Some(id(1)), job: Some(id(51)) });
        let answer = Answer::Queued { at: At(at + 1), of: None, job: id(51).to_string() };
        let change = Change { at: At(at), answer, ..case.senders[0].changes[0].clone() };
        case.senders[0].changes.push(change);
        case.broken()
    };
    assert!(case(8_000).contains(&"e"));
    assert!(!case(9_500).contains(&"e"));
    assert!(!case(500).contains(&"e"), "its target may not have been there");
}

#[test]
fn f_what_a_guest_learns_after_leaving_is_found() {
    let late = Case::new().with_a_guest_who_saw(Seen { rev: 3, at: At(8_999), live: false });
    assert_eq!(late.broken(), ["f"]);
    let back = Case::new().with_a_guest_who_saw(Seen { rev: 3, at: At(9_100), live: false });
    assert_eq!(back.broken(), NOTHING);
}

#[test]
fn f_a_room_that_is_named_a_second_after_it_was_left_is_found() {
    let named = || {
        let mut case = Case::new().with_a_guest_who_saw(Seen { rev: 2, at: At(100), live: true });
        let guest = case.world.rooms[1].guest.expect("a guest");
        case.devices[guest].1.log.named.push((1, At(8_000)));
        case
    };
    assert_eq!(named().broken(), ["f"]);
    assert_eq!(named().struck(Reach::Everybody, Reach::gateway(1), 50, 7_000).broken(), ["f"], "of others");
    assert_eq!(named().struck(Reach::Everybody, Reach::gateway(0), 50, 7_000).broken(), NOTHING);
    let mut early = named();
    early.devices.iter_mut().for_each(|(_, notes)| notes.log.named.retain(|(_, at)| at.0 < 1_000));
    assert_eq!(early.broken(), NOTHING);
}

#[test]
fn g_what_does_not_converge_is_found() {
    let mut case = Case::new();
    case.view(0).messages.get_mut(&1).expect("there").content = "0.1 says something else".to_owned();
    assert_eq!(case.broken(), ["g"]);
    let mut case = Case::new();
    case.truth.reactions.insert((id(1).to_string(), case.world.users[1].id.clone(), "👍".to_owned()));
    assert!(case.broken().contains(&"g"));
    let mut case = Case::new();
    let reader = (0, case.world.users[1].id.clone());
    case.truth.members.insert(reader, 2);
    assert_eq!(case.broken(), ["g"]);
}

#[test]
fn d_a_member_whom_nobody_added_or_who_is_missing_is_found() {
    let mut case = Case::new();
    case.truth.members.remove(&(0, case.world.users[1].id.clone()));
    assert_eq!(case.broken(), ["d"]);
    let mut case = Case::new();
    case.truth.members.insert((1, id(99).to_string()), 0);
    assert_eq!(case.broken(), ["d"]);
}

#[test]
fn g_a_read_mark_that_was_acked_and_is_lost_is_found() {
    let mut case = Case::new();
    case.senders[0].read.insert(0, (2, At(5)));
    assert_eq!(case.broken(), ["g"]);
}

#[test]
fn h_what_is_refused_though_nothing_happened_is_found() {
    let refused = || {
        let mut case = Case::new();
        let what = "UNAVAILABLE".to_owned();
        case.devices[0].1.log.troubles.push(Trouble { gateway: 0, from: At(5_000), to: At(5_100), what });
        case
    };
    assert_eq!(refused().broken(), ["h"]);
    assert_eq!(refused().struck(Reach::gateway(0), Reach::Nobody, 4_000, 4_500).broken(), NOTHING);
    assert_eq!(refused().struck(Reach::gateway(0), Reach::Nobody, 3_000, 3_900).broken(), ["h"], "long over");
    assert_eq!(refused().struck(Reach::gateway(1), Reach::Nobody, 4_000, 4_500).broken(), ["h"], "elsewhere");
}

#[test]
fn h_what_the_api_refuses_though_nothing_happened_is_found() {
    let refused = || {
        let mut case = Case::new();
        let what = "503 UNAVAILABLE".to_owned();
        case.senders[0].troubles.push(Trouble { gateway: API, from: At(5_000), to: At(5_100), what });
        case
    };
    assert_eq!(refused().broken(), ["h"]);
    assert_eq!(refused().struck(Reach::gateway(API), Reach::Nobody, 4_000, 4_500).broken(), NOTHING);
    assert_eq!(refused().struck(Reach::gateway(0), Reach::Nobody, 4_000, 4_500).broken(), ["h"], "a gateway's");
    let of_one = || {
        let mut case = refused();
        case.world.api = "http://one".to_owned();
        case.world.gateways = vec![case.world.api.clone()];
        case
    };
    assert_eq!(of_one().struck(Reach::gateway(0), Reach::Nobody, 4_000, 4_500).broken(), NOTHING, "the same program");
}

#[test]
fn h_a_late_delivery_is_found_and_trouble_in_its_way_excuses_it() {
    let late = || {
        let mut case = Case::new();
        case.devices[0].1.log.seen.insert(0, vec![Seen { rev: 3, at: At(5_000), live: true }]);
        case
    };
    assert_eq!(late().broken(), ["h"]);
    assert_eq!(late().struck(Reach::Everybody, Reach::Nobody, 100, 4_500).broken(), NOTHING);
    assert_eq!(late().struck(Reach::gateway(1), Reach::Everybody, 100, 4_500).broken(), ["h"], "not in its way");
    assert_eq!(late().struck(Reach::Everybody, Reach::Nobody, 3_000, 4_500).broken(), ["h"], "late already");
}

#[test]
fn h_a_connection_that_ends_though_nothing_happened_is_found() {
    let ended = || {
        let mut case = Case::new();
        case.devices[0].1.log.spans[0].to = Some(At(5_000));
        case
    };
    assert_eq!(ended().broken(), ["h"]);
    assert_eq!(ended().struck(Reach::gateway(0), Reach::Nobody, 4_000, 4_500).broken(), NOTHING);
    assert_eq!(ended().struck(Reach::gateway(1), Reach::Nobody, 4_000, 4_500).broken(), ["h"]);
    assert_eq!(ended().struck(Reach::gateway(0), Reach::Nobody, 1_000, 2_000).broken(), ["h"], "long over");
    assert_eq!(ended().struck(Reach::Nobody, Reach::gateway(0), 1_000, 2_000).broken(), NOTHING, "it went silent then");
}
