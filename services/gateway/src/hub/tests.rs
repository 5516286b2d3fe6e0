//! What the hub promises, shown on the state machines alone: no network, no store.

use std::sync::Arc;

use domain::room::{Role, RoomKind};
use domain::{Rev, RoomId, UserId};
use proptest::prelude::*;
use protocol::{Channel, CloseCode, EventData, OpenedDelivery, wire};
use realtime::LogNumber;
use uuid::Uuid;

use super::room::{Armed, Need, Room};
use super::{Filled, Hub, Known, Ticket, Wakes};
use crate::codec::{Delivered, Dialect, Place};
use crate::handle::tests::{handle, sent};
use crate::handle::{Handle, Signal};

pub(super) const OPENING: Ticket = Ticket::OPENING;
pub(super) const ROOM: RoomId = RoomId(Uuid::from_u128(77));

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

pub(super) fn message(rev: i64) -> OpenedDelivery {
    let event = wire::MessageDelivered { room_id: ROOM.to_string(), rev: Some(rev), ..Default::default() };
    OpenedDelivery { rev: Some(Rev(rev)), epoch: Rev::ZERO, except: None, event: EventData::MessageDelivered(event) }
}

fn left(rev: i64, who: u128) -> OpenedDelivery {
    let event =
        wire::RoomMemberLeft { room_id: ROOM.to_string(), rev, user_id: user(who).to_string(), ..Default::default() };
    OpenedDelivery { rev: Some(Rev(rev)), epoch: Rev(rev), except: None, event: EventData::RoomMemberLeft(event) }
}

fn typing(by: u128) -> OpenedDelivery {
    let event = wire::Typing { room_id: ROOM.to_string(), user_id: user(by).to_string(), is_typing: true };
    OpenedDelivery { except: Some(user(by)), ..OpenedDelivery::passing(EventData::Typing(event)) }
}

fn receipt() -> OpenedDelivery {
    let event = wire::MessageReadBy { room_id: ROOM.to_string(), seq: 1, ..Default::default() };
    OpenedDelivery::passing(EventData::MessageRead(event))
}

/// The revs that wait for a connection, in their order.
pub(super) fn revs(handle: &Handle) -> Vec<i64> {
    sent(handle).iter().map(|frame| frame["data"]["rev"].as_i64().unwrap_or(-1)).collect()
}

pub(super) fn accept(room: &mut Room, opened: OpenedDelivery) -> Need {
    room.accept(Arc::new(Delivered::new(opened)), Place::Sound, Wakes::AtOnce)
}

pub(super) fn join(room: &mut Room, handle: &Arc<Handle>, rev: i64) {
    room.claim(handle, OPENING);
    assert!(matches!(room.arm(handle.key, OPENING, Rev(rev), RoomKind::Group, Role::Member), Armed::Yes(_)));
    room.open(handle.key, OPENING);
}

#[test]
fn deliveries_are_released_in_order_without_repeats() {
    let (mut room, one) = (Room::new(ROOM), handle(1, 1));
    join(&mut room, &one, 10);
    assert_eq!(accept(&mut room, message(11)), Need::Nothing);
    assert_eq!(accept(&mut room, message(11)), Need::Nothing);
    assert_eq!(accept(&mut room, message(13)), Need::Fill, "12 is missing");
    assert_eq!(accept(&mut room, message(14)), Need::Nothing, "a filling goes on already");
    assert_eq!(revs(&one), [11]);
    let _ = accept(&mut room, message(12));
    assert_eq!(revs(&one), [12, 13, 14]);
    assert!(room.gap().is_none());
}

#[test]
fn what_came_before_the_first_member_was_armed_is_not_lost() {
    let (mut room, one) = (Room::new(ROOM), handle(1, 1));
    room.claim(&one, OPENING);
    for rev in [4, 6, 5] {
        assert_eq!(accept(&mut room, message(rev)), Need::Nothing);
    }
    assert_eq!(room.arm(1, OPENING, Rev(4), RoomKind::Group, Role::Member), Armed::Yes(Need::Nothing));
    assert!(revs(&one).is_empty(), "nothing before the connection is open");
    room.open(1, OPENING);
    assert_eq!(revs(&one), [5, 6]);
}

#[test]
fn a_member_that_read_the_store_too_early_has_to_read_again() {
    let (mut room, one, late) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    room.claim(&late, OPENING);
    join(&mut room, &one, 5);
    assert_eq!(room.arm(2, OPENING, Rev(4), RoomKind::Group, Role::Member), Armed::TooEarly);
    let _ = accept(&mut room, message(6));
    assert_eq!(room.arm(2, OPENING, Rev(5), RoomKind::Group, Role::Member), Armed::Yes(Need::Nothing));
    room.open(2, OPENING);
    assert_eq!(revs(&late), [6]);
}

#[test]
fn a_member_ahead_of_the_room_gets_nothing_twice() {
    let (mut room, one, ahead) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    join(&mut room, &one, 5);
    join(&mut room, &ahead, 7);
    for rev in [6, 7, 8] {
        let _ = accept(&mut room, message(rev));
    }
    assert_eq!(revs(&one), [6, 7, 8]);
    assert_eq!(revs(&ahead), [8]);
}

#[test]
fn who_leaves_is_told_so_and_gets_nothing_after_it() {
    let (mut room, stays, goes) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    join(&mut room, &stays, 1);
    join(&mut room, &goes, 1);
    let _ = accept(&mut room, message(3));
    let _ = accept(&mut room, left(2, 2));
    let _ = accept(&mut room, typing(1));
    assert_eq!(revs(&goes), [2]);
    assert_eq!(revs(&stays), [2, 3]);
    assert!(goes.leave_all().is_empty());
}

#[test]
fn who_was_removed_while_opening_is_told_up_to_that() {
    let (mut room, goes) = (Room::new(ROOM), handle(2, 2));
    room.claim(&goes, OPENING);
    let _ = room.arm(2, OPENING, Rev(1), RoomKind::Group, Role::Member);
    for opened in [message(2), left(3, 2), message(4)] {
        let _ = accept(&mut room, opened);
    }
    room.open(2, OPENING);
    assert_eq!(revs(&goes), [2, 3]);
    assert!(room.is_empty());
}

#[test]
fn an_old_removal_does_not_remove_who_has_joined_again() {
    let (mut room, one, again) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    join(&mut room, &one, 4);
    join(&mut room, &again, 7);
    let _ = accept(&mut room, left(5, 2));
    for rev in [6, 7, 8] {
        let _ = accept(&mut room, message(rev));
    }
    assert_eq!(revs(&again), [8]);
}

#[test]
fn who_types_in_a_room_is_not_told_before_the_room_is() {
    let (mut room, one) = (Room::new(ROOM), handle(1, 1));
    room.claim(&one, OPENING);
    let _ = accept(&mut room, message(5));
    assert!(matches!(room.arm(1, OPENING, Rev(4), RoomKind::Group, Role::Member), Armed::Yes(_)));
    one.tell(&Delivered::new(message(4)));
    room.open(1, OPENING);
    let _ = accept(&mut room, typing(2));
    assert_eq!(revs(&one), [4, 5, -1]);
}

#[test]
fn typing_is_not_told_to_who_types_and_waits_for_nobody() {
    let (mut room, one, other) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    join(&mut room, &one, 4);
    join(&mut room, &other, 4);
    let _ = accept(&mut room, typing(1));
    assert_eq!((sent(&one).len(), sent(&other).len()), (0, 1));
}

#[test]
fn receipts_are_for_whoever_is_there_also_on_the_way_in() {
    let (mut room, one, other) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    room.claim(&one, OPENING);
    let _ = accept(&mut room, receipt());
    assert_eq!(room.arm(1, OPENING, Rev(4), RoomKind::Group, Role::Member), Armed::Yes(Need::Nothing));
    room.open(1, OPENING);
    join(&mut room, &other, 4);
    let _ = accept(&mut room, left(6, 2));
    let _ = accept(&mut room, receipt());
    assert_eq!((sent(&one).len(), sent(&other).len()), (2, 1), "nobody waits for a removal on its way");
}

#[test]
fn a_room_far_behind_asks_for_all_of_it_and_stays_bounded() {
    let (mut room, one) = (Room::new(ROOM), handle(1, 1));
    join(&mut room, &one, 0);
    for rev in 2..5_000 {
        let _ = accept(&mut room, message(rev));
    }
    let gap = room.gap().expect("1 is missing");
    assert_eq!((gap.after, gap.up_to), (Rev(0), Rev(4_999)));
    let mut told = Vec::new();
    for rev in 1..5_000 {
        let _ = accept(&mut room, message(rev));
        told.extend(revs(&one));
    }
    assert_eq!(told, (1..5_000).collect::<Vec<_>>());
}

fn known(rev: i64) -> Known {
    Known { room: ROOM, rev: Rev(rev), kind: RoomKind::Group, role: Role::Owner }
}

#[tokio::test]
async fn a_gap_is_asked_for_once_and_filled() {
    let (hub, mut requests) = Hub::new(0);
    let one = handle(1, 1);
    assert_eq!(hub.enter(&one, &[ROOM]), [ROOM], "has to be subscribed");
    hub.subscribed(&[ROOM]);
    assert!(hub.enter(&handle(2, 2), &[ROOM]).is_empty(), "is subscribed");
    assert!(hub.arm(&one, OPENING, &[known(3)]).is_empty());
    hub.open(&one, ROOM, OPENING);
    for rev in [6, 7, 9] {
        hub.route(Channel::Room(ROOM), message(rev), LogNumber::NONE, 0);
    }
    assert_eq!(requests.fills.recv().await, Some(ROOM));
    assert!(requests.fills.try_recv().is_err());
    assert_eq!(hub.fill(ROOM, vec![message(4)]), Filled::More { progress: true });
    assert_eq!(hub.fill(ROOM, vec![]), Filled::More { progress: false });
    assert_eq!(hub.fill(ROOM, (5..9).map(message).collect()), Filled::Done);
    assert_eq!(revs(&one), [4, 5, 6, 7, 8, 9]);
}

/// The offsets that wait for a Socket.IO connection, in their order.
fn offsets(handle: &Handle) -> Vec<String> {
    let of = |popped: crate::handle::outbox::Popped| {
        let text = String::from_utf8_lossy(&popped.bytes).into_owned();
        let offset = text.rsplit_once(",\"").map(|(_, offset)| offset.trim_end_matches("\"]").to_owned());
        offset.expect("an offset")
    };
    std::iter::from_fn(|| handle.pop()).map(of).collect()
}

#[tokio::test]
async fn offsets_are_given_only_while_nothing_is_missing_anywhere() {
    const OTHER: RoomId = RoomId(Uuid::from_u128(78));
    let (hub, _requests) = Hub::new(0);
    let one = crate::handle::tests::handle_of(Dialect::SocketIo, 1, 1);
    let in_room = |room, rev| Known { room, ..known(rev) };
    hub.enter(&one, &[ROOM, OTHER]);
    assert!(hub.arm(&one, OPENING, &[in_room(ROOM, 3), in_room(OTHER, 0)]).is_empty());
    let route = |room, rev, number| hub.route(Channel::Room(room), message(rev), LogNumber(number), 0);
    route(OTHER, 1, 10);
    for room in [ROOM, OTHER] {
        hub.open(&one, room, OPENING);
    }
    one.followed.begin(LogNumber(5));
    assert_eq!(offsets(&one), ["-"], "what was held");
    route(ROOM, 4, 20);
    route(OTHER, 2, 30);
    assert_eq!(offsets(&one), ["20", "30"]);
    route(ROOM, 6, 50);
    route(OTHER, 3, 60);
    assert_eq!(offsets(&one), ["-"], "5 is missing elsewhere");
    assert_eq!(hub.fill(ROOM, vec![message(5)]), Filled::Done);
    assert_eq!(offsets(&one), ["-", "-"], "the one that was missing, and the one that waited for it");
    route(OTHER, 4, 70);
    assert_eq!(offsets(&one), ["70"]);
    hub.sound.note_loss();
    route(OTHER, 5, 80);
    assert_eq!(offsets(&one), ["-"], "nobody knows what is missing");
    hub.sound.losses_are_known(hub.sound.losses());
    route(OTHER, 6, 90);
    assert_eq!(offsets(&one), ["90"]);
}

#[tokio::test]
async fn a_member_knows_its_standing_only_once_the_store_said_so() {
    let (hub, _requests) = Hub::new(0);
    let one = handle(1, 1);
    hub.enter(&one, &[ROOM]);
    assert_eq!(hub.standing(&one, ROOM), None);
    hub.arm(&one, OPENING, &[known(3)]);
    assert_eq!(hub.standing(&one, ROOM), Some((RoomKind::Group, Role::Owner)));
    hub.leave(&one, &[ROOM]);
    assert_eq!(hub.standing(&one, ROOM), None);
}

#[tokio::test]
async fn user_events_wait_until_the_session_is_ready_and_joins_are_carried_out_by_others() {
    let (hub, mut requests) = Hub::new(0);
    let one = handle(17, 1);
    hub.users.enter(&one);
    let created = EventData::RoomCreated(wire::RoomCreated { room_id: ROOM.to_string(), rev: 1, ..Default::default() });
    let failed = EventData::MessageFailed(wire::MessageFailed::default());
    for event in [failed, created] {
        let opened = OpenedDelivery::passing(event);
        hub.route(Channel::User(user(1)), opened, LogNumber::NONE, 0);
    }
    assert!(one.is_idle());
    for early in one.take_early() {
        hub.tell(user(1), &one, &early);
    }
    assert_eq!(sent(&one).len(), 1, "the failure; the room is told once it is followed");
    let join = requests.joins[1].recv().await.expect("a join");
    assert_eq!((join.room, join.since, join.handle.key), (ROOM, Rev(1), 17));
}

#[test]
fn a_second_connection_of_a_device_takes_the_place_of_the_first() {
    let (hub, _requests) = Hub::new(0);
    let (first, second) = (handle(1, 1), handle(2, 1));
    assert!(hub.users.enter(&first).is_none());
    let replaced = hub.users.enter(&second).expect("the first one");
    assert_eq!(replaced.key, 1);
    replaced.close(CloseCode::Replaced);
    assert_eq!(first.take_signal(), Some(Signal::Close(CloseCode::Replaced)));
    hub.depart(&first);
    assert_eq!(hub.users.ids(), [user(1)], "the second one is there still");
}

#[test]
fn rooms_and_users_without_connections_are_swept_after_a_while() {
    let (hub, _requests) = Hub::new(0);
    let one = handle(1, 1);
    hub.users.enter(&one);
    hub.enter(&one, &[ROOM]);
    hub.depart(&one);
    let gone = std::cell::RefCell::new(Vec::new());
    let note = |channels: &[Channel]| gone.borrow_mut().extend_from_slice(channels);
    assert_eq!(hub.sweep(1, 2, note), 1);
    assert_eq!(hub.sweep(2, 2, note), 1);
    assert!(gone.borrow().is_empty());
    assert_eq!(hub.sweep(3, 2, note), 0);
    assert_eq!(*gone.borrow(), [Channel::Room(ROOM), Channel::User(user(1))]);
}

/// One thing that happens in a world of one room, a store and a pub/sub that loses and repeats.
#[derive(Debug, Clone)]
enum Happening {
    Commit,
    Kick(usize),
    Arrive(usize),
    ArriveAgain(usize),
    Lose(usize),
    Enter(usize),
    Read(usize),
    Arm(usize),
    Open(usize),
    Fill,
}

fn happening() -> impl Strategy<Value = Happening> {
    let member = 0..3usize;
    prop_oneof![
        4 => Just(Happening::Commit),
        1 => member.clone().prop_map(Happening::Kick),
        6 => (0..6usize).prop_map(Happening::Arrive),
        1 => (0..6usize).prop_map(Happening::ArriveAgain),
        1 => (0..6usize).prop_map(Happening::Lose),
        2 => member.clone().prop_map(Happening::Enter),
        2 => member.clone().prop_map(Happening::Read),
        2 => member.clone().prop_map(Happening::Arm),
        2 => member.prop_map(Happening::Open),
        1 => Just(Happening::Fill),
    ]
}

#[derive(Default)]
struct Person {
    entered: bool,
    read: Option<i64>,
    armed: Option<i64>,
    opened: bool,
    kicked_at: Option<i64>,
}

struct World {
    room: Room,
    /// What each rev was; the store.
    log: Vec<OpenedDelivery>,
    network: Vec<OpenedDelivery>,
    people: Vec<(Person, Arc<Handle>)>,
}

impl World {
    fn new() -> Self {
        let people = (0..3).map(|number| (Person::default(), handle(number + 1, u128::from(number)))).collect();
        Self { room: Room::new(ROOM), log: Vec::new(), network: Vec::new(), people }
    }

    fn rev(&self) -> i64 {
        self.log.len() as i64
    }

    fn commit(&mut self, opened: OpenedDelivery) {
        self.network.push(opened.clone());
        self.log.push(opened);
    }

    fn fill(&mut self) {
        while let Some(gap) = self.room.gap() {
            for opened in self.log[gap.after.0 as usize..gap.up_to.0 as usize].iter().cloned() {
                let _ = accept(&mut self.room, opened);
            }
        }
        self.room.stop_filling();
    }

    fn arrive(&mut self, at: usize, stays: bool) {
        if at < self.network.len() {
            let opened = if stays { self.network[at].clone() } else { self.network.remove(at) };
            let _ = accept(&mut self.room, opened);
        }
    }

    fn happen(&mut self, happening: &Happening) {
        let rev = self.rev();
        match *happening {
            Happening::Commit => self.commit(message(rev + 1)),
            Happening::Kick(who) if self.people[who].0.kicked_at.is_none() => {
                self.people[who].0.kicked_at = Some(rev + 1);
                self.commit(left(rev + 1, who as u128));
            }
            Happening::Arrive(at) => self.arrive(at, false),
            Happening::ArriveAgain(at) => self.arrive(at, true),
            Happening::Lose(at) if at < self.network.len() => drop(self.network.remove(at)),
            Happening::Kick(_) | Happening::Lose(_) => {}
            Happening::Enter(who) => self.enter(who),
            Happening::Read(who) => self.read(who),
            Happening::Arm(who) => self.arm(who),
            Happening::Open(who) => self.open(who),
            Happening::Fill => self.fill(),
        }
    }

    fn enter(&mut self, who: usize) {
        let (person, handle) = &mut self.people[who];
        if !person.entered {
            person.entered = true;
            self.room.claim(handle, OPENING);
        }
    }

    fn read(&mut self, who: usize) {
        let rev = self.rev();
        let (person, handle) = &mut self.people[who];
        if person.entered && person.armed.is_none() {
            person.read = person.kicked_at.is_none().then_some(rev);
            if person.read.is_none() {
                self.room.leave(handle.key);
            }
        }
    }

    fn arm(&mut self, who: usize) {
        let (person, handle) = &mut self.people[who];
        if let (Some(rev), None) = (person.read, person.armed) {
            match self.room.arm(handle.key, OPENING, Rev(rev), RoomKind::Group, Role::Member) {
                Armed::Yes(_) => person.armed = Some(rev),
                Armed::TooEarly => person.read = None,
                Armed::Gone => {}
            }
        }
    }

    fn open(&mut self, who: usize) {
        let (person, handle) = &mut self.people[who];
        if person.armed.is_some() && !person.opened {
            person.opened = true;
            self.room.open(handle.key, OPENING);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_lost_repeated_or_late_every_member_gets_every_rev_once_and_in_order(
        happenings in proptest::collection::vec(happening(), 0..80),
    ) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
        }
        // In the end the room hears of what it missed and fills it.
        let _ = world.room.learn(Rev(world.rev()));
        world.fill();
        let rev = world.rev();
        for (person, handle) in &world.people {
            let got = revs(handle);
            match person.armed.filter(|_| person.opened) {
                Some(armed) => {
                    let last = person.kicked_at.unwrap_or(rev);
                    prop_assert_eq!(got, (armed + 1..=last).collect::<Vec<_>>());
                }
                None => prop_assert!(got.is_empty()),
            }
        }
    }
}
