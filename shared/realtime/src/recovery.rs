//! The values of connection state recovery, shared by both engines.
//!
//! Knows neither engine. The invariant: what is not known for sure is [`Since::Unknown`].

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
        deliveries: Vec<(Rev, LogNumber)>,
        /// The log begins after this rev, later than at the number asked for: nothing came in between if
        /// no log was lost before this one began.
        begins_after: Option<Rev>,
    },
    /// The log does not reach that far back, or is broken, or there was no place for what it has.
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

/// An entry of a log: rev, number, and whether it is none but says after which rev the log begins.
pub(crate) type Entry = (Rev, LogNumber, bool);

/// Judges the entries of a log, newest first, back to what came not after `after`; takes what came from
/// `left`, or all of that if it is not enough.
pub(crate) fn since(entries: impl Iterator<Item = Entry>, after: LogNumber, left: &mut usize) -> Since {
    let (mut newest, mut expected) = (None, None);
    let (mut deliveries, mut begins_after, mut is_proven) = (Vec::new(), None, false);
    for (rev, number, is_beginning) in entries {
        if expected.is_some_and(|expected| expected != rev) {
            return Since::Unknown;
        }
        newest = newest.or(Some(rev));
        expected = Some(Rev(rev.0 - 1));
        is_proven = number <= after || is_beginning;
        begins_after = (is_beginning && number > after).then_some(rev);
        if is_proven {
            break;
        }
        if deliveries.len() == *left {
            *left = 0;
            return Since::Unknown;
        }
        deliveries.push((rev, number));
    }
    let Some(newest) = newest else { return Since::NoLog };
    if !is_proven && expected != Some(Rev::ZERO) {
        return Since::Unknown;
    }
    *left -= deliveries.len();
    deliveries.reverse();
    Since::Logged { newest, deliveries, begins_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of a log of these revs (negative where it begins) and numbers: the newest rev, the
    /// revs that came, and after which rev it begins.
    fn of(entries: &[(i64, u64)], after: u64) -> Option<(i64, Vec<i64>, Option<i64>)> {
        let newest_first = entries.iter().rev().map(|(rev, number)| (Rev(rev.abs()), LogNumber(*number), *rev < 0));
        match since(newest_first, LogNumber(after), &mut 2) {
            Since::Logged { newest, deliveries, begins_after } => {
                let revs = deliveries.iter().map(|(rev, _)| rev.0).collect();
                Some((newest.0, revs, begins_after.map(|rev| rev.0)))
            }
            Since::NoLog => Some((0, Vec::new(), None)),
            Since::Unknown => None,
        }
    }

    #[test]
    fn what_came_after_is_told_if_it_is_proven_to_be_all() {
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], 10), Some((6, vec![5, 6], None)));
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], 15), Some((6, vec![5, 6], None)));
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], 30), Some((6, vec![], None)));
        assert_eq!(of(&[(4, 10), (5, 20), (6, 30)], 9), None, "too many");
        assert_eq!(of(&[(4, 10), (5, 20)], 5), None, "4 may not be the first one");
        assert_eq!(of(&[(1, 10), (2, 20)], 5), Some((2, vec![1, 2], None)), "1 is the first one");
        assert_eq!(of(&[(-4, 10), (5, 20)], 5), Some((5, vec![5], Some(4))), "4 came before 10, if not after 5");
        assert_eq!(of(&[(-4, 10), (5, 20)], 10), Some((5, vec![5], None)), "4 came before 10");
        assert_eq!(of(&[(4, 10), (6, 20)], 5), None, "5 is missing");
        assert_eq!(of(&[], 5), Some((0, vec![], None)));
    }

    #[test]
    fn of_many_logs_no_more_is_told_than_was_asked_for() {
        let (log, mut left) = ([(Rev(2), LogNumber(20), false), (Rev(1), LogNumber(10), false)], 3);
        let mut told = || since(log.into_iter(), LogNumber::NONE, &mut left) != Since::Unknown;
        assert_eq!((told(), told()), (true, false));
    }
}
