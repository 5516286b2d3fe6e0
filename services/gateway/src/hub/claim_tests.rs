//! Several that let one connection into one room at once: a word, the client itself, and its changing its
//! mind meanwhile.

use std::sync::Arc;

use domain::Rev;
use domain::room::{Role, RoomKind};
use protocol::{Channel, OpenedDelivery};
use realtime::LogNumber;

use super::tests::{ROOM, message, revs};
use super::{Claim, Hub, Known, Position, Way};
use crate::codec::Delivered;
use crate::handle::Handle;
use crate::handle::tests::handle;

/// A hub with a room at rev 5, in which somebody else is.
fn hub() -> (Arc<Hub>, Arc<Handle>) {
    let (hub, _requests) = Hub::new(0);
    let other = handle(1, 1);
    let claim = hub.claim(&other, ROOM, Way::Wish).expect("nobody else");
    arm(&hub, &other, claim, 5);
    hub.open(&other, ROOM, claim.ticket);
    (hub, handle(2, 2))
}

fn arm(hub: &Hub, handle: &Handle, claim: Claim, rev: i64) {
    let known = Known { room: ROOM, rev: Rev(rev), kind: RoomKind::Group, role: Role::Member };
    assert!(hub.arm(handle, claim.ticket, &[known]).is_empty());
}

fn tell(hub: &Hub, handle: &Handle, claim: Claim, told: OpenedDelivery) -> bool {
    hub.tell_entering(handle, ROOM, claim.ticket, |handle| handle.tell(&Delivered::new(told)))
}

fn release(hub: &Hub, rev: i64) {
    hub.route(Channel::Room(ROOM), message(rev), LogNumber::NONE, 0);
}

#[test]
fn who_wishes_a_room_before_it_was_told_of_it_is_not_told_what_is_older() {
    let (hub, one) = hub();
    let word = hub.claim(&one, ROOM, Way::Word(Rev(5))).expect("absent");
    arm(&hub, &one, word, 5);
    release(&hub, 6);
    let wish = hub.claim(&one, ROOM, Way::Wish).expect("nothing was told yet");
    arm(&hub, &one, wish, 6);
    // Read before, arrived after it.
    arm(&hub, &one, word, 9);
    release(&hub, 7);
    hub.open(&one, ROOM, wish.ticket);
    release(&hub, 8);
    assert!(!tell(&hub, &one, word, message(5)));
    hub.open(&one, ROOM, word.ticket);
    hub.abandon(&one, ROOM, word.ticket);
    release(&hub, 9);
    assert_eq!(revs(&one), [7, 8, 9]);
}

#[test]
fn who_wishes_a_room_while_being_told_of_it_changes_nothing() {
    let (hub, one) = hub();
    let word = hub.claim(&one, ROOM, Way::Word(Rev(4))).expect("absent");
    arm(&hub, &one, word, 5);
    assert!(tell(&hub, &one, word, message(4)));
    release(&hub, 6);
    assert_eq!(hub.claim(&one, ROOM, Way::Wish), None);
    assert!(tell(&hub, &one, word, message(5)));
    hub.open(&one, ROOM, word.ticket);
    assert_eq!(hub.claim(&one, ROOM, Way::Wish), None);
    assert_eq!(revs(&one), [4, 5, 6]);
}

#[test]
fn of_a_room_that_was_switched_off_nothing_is_told_whatever_was_on_its_way() {
    let (hub, one) = hub();
    for told_before in [0, 1] {
        let word = hub.claim(&one, ROOM, Way::Word(Rev(6))).expect("absent");
        arm(&hub, &one, word, 7);
        assert!((0..told_before).all(|_| tell(&hub, &one, word, message(6))));
        hub.switch_off(&one, ROOM, Rev(5));
        assert!(!tell(&hub, &one, word, message(7)));
        hub.open(&one, ROOM, word.ticket);
        assert_eq!(hub.position(&one, ROOM), Position::Absent);
        assert_eq!(revs(&one).len(), told_before);
        assert_eq!(hub.claim(&one, ROOM, Way::Word(Rev(7))), None, "that was said of this membership, or later");
        let wish = hub.claim(&one, ROOM, Way::Wish).expect("it may be switched on");
        hub.abandon(&one, ROOM, wish.ticket);
        assert!(one.switched_off.contains(ROOM), "what failed changed nothing");
        one.switched_off.remove(ROOM);
    }
    hub.switch_off(&one, ROOM, Rev(7));
    let again = hub.claim(&one, ROOM, Way::Word(Rev(8))).expect("a later membership");
    arm(&hub, &one, again, 8);
    hub.open(&one, ROOM, again.ticket);
    assert!(one.switched_off.is_empty() && hub.is_open(&one, ROOM));
}

#[test]
fn what_fails_half_way_leaves_nothing_held() {
    let (hub, one) = hub();
    let word = hub.claim(&one, ROOM, Way::Word(Rev(5))).expect("absent");
    let wish = hub.claim(&one, ROOM, Way::Wish).expect("nothing was told yet");
    hub.abandon(&one, ROOM, word.ticket);
    assert_ne!(hub.position(&one, ROOM), Position::Absent, "others let it in");
    hub.abandon(&one, ROOM, wish.ticket);
    assert_eq!(hub.position(&one, ROOM), Position::Absent);
    assert!(one.leave_all().is_empty());
}

#[test]
fn a_connection_that_has_departed_is_not_added_any_more() {
    let (hub, one) = hub();
    hub.depart(&one);
    hub.enter(&one, &[ROOM]);
    assert_eq!(hub.claim(&one, ROOM, Way::Word(Rev(5))), None);
    assert_eq!(hub.position(&one, ROOM), Position::Absent);
}
