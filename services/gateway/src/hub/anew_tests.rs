//! A room with a gap that nobody can fill: nothing behind it is ever told as if it were all.

use protocol::CloseCode;

use super::room::{Need, Room};
use super::tests::{ROOM, accept, join, message, revs};
use crate::handle::Signal;
use crate::handle::tests::handle;

#[test]
fn whoever_followed_a_room_whose_missing_changes_are_not_kept_is_sent_to_catch_up() {
    let (mut room, one, two) = (Room::new(ROOM), handle(1, 1), handle(2, 2));
    join(&mut room, &one, 10);
    assert_eq!(accept(&mut room, message(13)), Need::Fill, "11 and 12 are missing");
    room.begin_anew();
    assert!(revs(&one).is_empty(), "13 is not told without them");
    assert_eq!(one.take_signal(), Some(Signal::Close(CloseCode::TooSlow)));
    assert!(room.is_empty() && room.gap().is_none() && room.released().is_none());

    // Who comes now has read the store up to 13.
    join(&mut room, &two, 13);
    assert_eq!(accept(&mut room, message(14)), Need::Nothing);
    assert_eq!(revs(&two), [14]);
}
