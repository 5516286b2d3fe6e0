//! Where a client of the long poll stands in all of its rooms, as one opaque text.
//!
//! The client keeps it, so the server keeps nothing. It says nothing about rights: what it names is
//! only ever looked for among the rooms that the store says are the user's. The invariant: whatever
//! text comes in is either what [`Cursor::encode`] gave this user, or refused.
//!
//! Layout, then base64url without padding: version (1 byte), check (4 bytes, over user and rest),
//! then numbers as varints (LEB128): the watermark of read marks, how many marks were told above it,
//! each as 3 bytes; how many bytes a room's tag has; then for each room, ascending, its tag and rev.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::{Invalid, Rev, RoomId, Seq, Timestamp, UserId, limits};
use sha2::{Digest as _, Sha256};

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;
/// Bytes of a room's tag: two of a user's 1,000 rooms have the same one in one of two million cases.
const TAG_BYTES: u8 = 5;
/// Then the tags are as long as this.
const LONG_TAG_BYTES: u8 = 8;
const MARK_BYTES: usize = 3;
/// Read marks above the watermark that a cursor remembers at most.
pub const MARKS: usize = 64;
/// The longest text that can be a cursor: what comes before the rooms, and the rooms at their longest.
const CHARS: usize = 400 + limits::POLL_ROOMS * (LONG_TAG_BYTES as usize + 10) * 4 / 3;

/// A position in all rooms of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Read marks up to this moment were told.
    pub marks_until: Timestamp,
    /// Tags of those told above it.
    marks: Vec<u32>,
    tag_bytes: u8,
    rooms: BTreeMap<u64, Rev>,
}

impl Cursor {
    /// A position; of the marks the last [`MARKS`] are kept.
    pub fn new(marks_until: Timestamp, marks: &[u32], rooms: &[(RoomId, Rev)]) -> Self {
        let with = |tag_bytes| rooms.iter().map(|(room, rev)| (room_tag(*room, tag_bytes), *rev)).collect();
        let (mut tag_bytes, mut by_tag): (u8, BTreeMap<u64, Rev>) = (TAG_BYTES, with(TAG_BYTES));
        if by_tag.len() < rooms.len() {
            (tag_bytes, by_tag) = (LONG_TAG_BYTES, with(LONG_TAG_BYTES));
        }
        let marks = marks[marks.len().saturating_sub(MARKS)..].to_vec();
        Self { marks_until, marks, tag_bytes, rooms: by_tag }
    }

    /// How far the client is in a room; `None`: it was not told of the room.
    pub fn rev_of(&self, room: RoomId) -> Option<Rev> {
        self.rooms.get(&room_tag(room, self.tag_bytes)).copied()
    }

    /// How many rooms it names.
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// The tags of the marks told above the watermark.
    pub fn marks(&self) -> &[u32] {
        &self.marks
    }

    /// The text for `user`.
    pub fn encode(&self, user: UserId) -> String {
        let mut rest = Vec::with_capacity(16 + self.rooms.len() * 8);
        write_varint(self.marks_until.0.max(0) as u64, &mut rest);
        write_varint(self.marks.len() as u64, &mut rest);
        for mark in &self.marks {
            rest.extend_from_slice(&mark.to_be_bytes()[4 - MARK_BYTES..]);
        }
        rest.push(self.tag_bytes);
        for (tag, rev) in &self.rooms {
            rest.extend_from_slice(&tag.to_be_bytes()[8 - usize::from(self.tag_bytes)..]);
            write_varint(rev.0.max(0) as u64, &mut rest);
        }
        let bytes = [&[VERSION], check(user, &rest).as_slice(), &rest].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what `encode` gave this user.
    pub fn decode(user: UserId, text: &str) -> Result<Self, Invalid> {
        let unknown = || Invalid::new("cursor", "is none of yours: leave it out to start now");
        if text.len() > CHARS {
            return Err(unknown());
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| unknown())?;
        let (&version, rest) = bytes.split_first().ok_or_else(unknown)?;
        let (given, rest) = rest.split_at_checked(CHECK_BYTES).ok_or_else(unknown)?;
        if version != VERSION || given != check(user, rest) {
            return Err(unknown());
        }
        Self::read(rest).ok_or_else(unknown)
    }

    fn read(mut rest: &[u8]) -> Option<Self> {
        let marks_until = Timestamp(i64::try_from(read_varint(&mut rest)?).ok()?);
        let count = read_varint(&mut rest).filter(|count| *count <= MARKS as u64)?;
        let (packed, mut rest) = rest.split_at_checked(count as usize * MARK_BYTES)?;
        let marks = packed.chunks_exact(MARK_BYTES).map(|bytes| number(bytes) as u32).collect();
        let (&tag_bytes, more) = rest.split_first().filter(|(bytes, _)| [TAG_BYTES, LONG_TAG_BYTES].contains(bytes))?;
        rest = more;
        let mut rooms = BTreeMap::new();
        while !rest.is_empty() {
            let (tag, more) = rest.split_at_checked(usize::from(tag_bytes))?;
            rest = more;
            let rev = Rev(i64::try_from(read_varint(&mut rest)?).ok()?);
            let ascends = rooms.last_key_value().is_none_or(|(last, _)| *last < number(tag));
            if !ascends || rooms.len() >= limits::POLL_ROOMS {
                return None;
            }
            rooms.insert(number(tag), rev);
        }
        Some(Self { marks_until, marks, tag_bytes, rooms })
    }
}

/// The tag of a read mark.
pub fn mark_tag(room: RoomId, user: UserId, seq: Seq) -> u32 {
    let digest = digest(&[b"mark", room.as_bytes(), user.as_bytes(), &seq.0.to_be_bytes()]);
    number(&digest[..MARK_BYTES]) as u32
}

fn room_tag(room: RoomId, tag_bytes: u8) -> u64 {
    number(&digest(&[b"room", room.as_bytes()])[..usize::from(tag_bytes)])
}

fn check(user: UserId, rest: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest(&[b"cursor", user.as_bytes(), rest])[..CHECK_BYTES]);
    check
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Up to eight bytes, the highest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, more) = rest.split_first()?;
        *rest = more;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const ANN: UserId = UserId(Uuid::from_u128(7));

    fn rooms(count: u128, rev: i64) -> Vec<(RoomId, Rev)> {
        (0..count).map(|number| (RoomId(Uuid::from_u128(number)), Rev(rev + number as i64))).collect()
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_takes_eleven_characters_a_room() {
        for count in [0, 1, 3, limits::POLL_ROOMS as u128] {
            let cursor = Cursor::new(Timestamp(1_800_000_000_000), &[1, 0xff_ff_ff], &rooms(count, 100_000));
            let text = cursor.encode(ANN);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
            assert!(text.len() <= 40 + count as usize * 11, "{} for {count}", text.len());
            assert_eq!(Cursor::decode(ANN, &text), Ok(cursor.clone()));
            for (room, rev) in rooms(count, 100_000) {
                assert_eq!(cursor.rev_of(room), Some(rev));
            }
            assert_eq!(cursor.rev_of(RoomId(Uuid::from_u128(5000))), None);
        }
    }

    #[test]
    fn a_cursor_is_its_owner_s_and_whole() {
        let text = Cursor::new(Timestamp(5), &[7], &rooms(3, 1)).encode(ANN);
        assert!(Cursor::decode(UserId(Uuid::from_u128(8)), &text).is_err());
        for end in 0..text.len() {
            assert_eq!(Cursor::decode(ANN, &text[..end]).expect_err("a part").field, "cursor");
        }
        assert!(Cursor::decode(ANN, &format!("{text}AAAA")).is_err());
        assert!(Cursor::decode(ANN, &"A".repeat(CHARS + 4)).is_err());
    }

    #[test]
    fn only_the_newest_marks_are_kept() {
        let marks: Vec<u32> = (0..100).collect();
        let cursor = Cursor::new(Timestamp(5), &marks, &[]);
        assert_eq!(cursor.marks(), &marks[100 - MARKS..]);
        assert_eq!(Cursor::decode(ANN, &cursor.encode(ANN)), Ok(cursor));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[VERSION], check(ANN, &rest).as_slice(), &rest].concat();
            let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            if let Ok(cursor) = Cursor::decode(ANN, &text) {
                prop_assert_eq!(Cursor::decode(ANN, &cursor.encode(ANN)), Ok(cursor));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,100}") {
            prop_assert!(Cursor::decode(ANN, &text).is_err());
        }
    }
}
