//! The values of connection state recovery, shared by both engines.
//!
//! Knows neither engine. The invariant: what is not known for sure is [`Since::Unknown`].

use bytes::Bytes;
use domain::{DeviceId, Membership, Rev, Timestamp, UserId};

/// Where a delivery stands among all that entered a log: microseconds since 1970, or a little more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogNumber(pub u64);

impl LogNumber {
    /// Of what entered no log, or nobody knows where it stands there.
    pub const NONE: Self = Self(0);

    /// True for a number.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// About when it was given, by the engine's clock.
    pub fn given_at(self) -> Timestamp {
        Timestamp((self.0 / 1000) as i64)
    }
}

/// An entry of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The room's rev.
    pub rev: Rev,
    /// The entry's number.
    pub number: LogNumber,
    /// The sealed delivery.
    pub payload: Bytes,
}

/// What a room's log knows about what came after a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// There is no log: nothing was logged lately, if none was lost.
    NoLog,
    /// These came, ascending, and no others; `newest` is the last rev in the log.
    Logged {
        /// The last rev in the log, whenever it came.
        newest: Rev,
        /// What came, ascending by rev and number.
        deliveries: Vec<Logged>,
    },
    /// The log does not reach that far back, or is broken.
    Unknown,
}

/// What a connection that broke off is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Whose it was.
    pub user: UserId,
    /// The device it was.
    pub device: DeviceId,
    /// The id the client knows it by.
    pub socket_id: String,
    /// The version of its user's rooms that it knew of,
    pub membership: Membership,
    /// and from after which delivery on.
    pub since: LogNumber,
}

/// Reads the newest entries of a log, newest first, back to what came not after `after`; `is_whole`:
/// there are no older ones.
pub(crate) fn since(
    entries: impl Iterator<Item = (Rev, LogNumber, Option<Bytes>)>,
    is_whole: bool,
    after: LogNumber,
) -> Since {
    let mut newest: Option<Rev> = None;
    let mut expected: Option<Rev> = None;
    let mut deliveries = Vec::new();
    let mut is_proven = false;
    for (rev, number, payload) in entries {
        if expected.is_some_and(|expected| expected != rev) {
            return Since::Unknown;
        }
        newest = newest.or(Some(rev));
        expected = Some(Rev(rev.0 - 1));
        if number <= after {
            is_proven = true;
            break;
        }
        let Some(payload) = payload else {
            // The log begins here: whatever was before is older than the longest a log is kept.
            is_proven = true;
            break;
        };
        deliveries.push(Logged { rev, number, payload });
    }
    let Some(newest) = newest else { return if is_whole { Since::NoLog } else { Since::Unknown } };
    let begins_with_the_room = is_whole && expected == Some(Rev::ZERO);
    if !(is_proven || begins_with_the_room) {
        return Since::Unknown;
    }
    deliveries.reverse();
    Since::Logged { newest, deliveries }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(i64, u64)], is_whole: bool, after: u64) -> Option<(i64, Vec<i64>)> {
        let newest_first = entries.iter().rev().map(|(rev, number)| {
            let payload = (*rev > 0).then(|| Bytes::from_static(b"x"));
            (Rev(rev.abs()), LogNumber(*number), payload)
        });
        match since(newest_first, is_whole, LogNumber(after)) {
            Since::Logged { newest, deliveries } => {
                Some((newest.0, deliveries.iter().map(|logged| logged.rev.0).collect()))
            }
            Since::NoLog => Some((0, Vec::new())),
            Since::Unknown => None,
        }
    }

    #[test]
    fn what_came_after_is_told_if_it_is_proven_to_be_all() {
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], false, 10), Some((6, vec![5, 6])));
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], false, 15), Some((6, vec![5, 6])));
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], false, 30), Some((6, vec![])));
        assert_eq!(of(&[(4, 10), (5, 20)], true, 5), None, "4 may not be the first one");
        assert_eq!(of(&[(1, 10), (2, 20)], true, 5), Some((2, vec![1, 2])), "1 is the first one");
        assert_eq!(of(&[(-4, 10), (5, 20)], true, 5), Some((5, vec![5])), "it begins after 4");
        assert_eq!(of(&[(4, 10), (6, 20)], true, 5), None, "5 is missing");
        assert_eq!(of(&[], true, 5), Some((0, vec![])));
    }
}
