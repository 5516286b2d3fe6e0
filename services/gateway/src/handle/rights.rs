//! What a session lives by: its token, and the version of its user's rooms it knows.
//!
//! Asks nobody. The invariant: whatever order a token and the end of all tokens before it come in,
//! one of the two notices that the session is over.

use std::sync::atomic::{AtomicI64, Ordering};

use domain::{Membership, Timestamp};

/// Of a session that has not read its user's rooms yet.
const UNKNOWN: i64 = -1;

/// A session's token and rooms.
#[derive(Debug)]
pub(crate) struct Rights {
    /// When the token was issued that the session lives by, milliseconds.
    issued_at: AtomicI64,
    /// The latest end of the user's tokens that was heard of, milliseconds.
    valid_after: AtomicI64,
    /// The version of the set of rooms that the connection follows.
    membership: AtomicI64,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            issued_at: AtomicI64::new(i64::MAX),
            valid_after: AtomicI64::new(0),
            membership: AtomicI64::new(UNKNOWN),
        }
    }
}

impl Rights {
    /// From now on the session lives by a token that was issued then. False: it is void already.
    #[must_use]
    pub(crate) fn live_by(&self, issued_at: Option<Timestamp>) -> bool {
        self.issued_at.store(issued_at.unwrap_or_default().0, Ordering::SeqCst);
        !self.is_void()
    }

    /// The user's tokens issued before are void. True: the session's own is one of them.
    #[must_use]
    pub(crate) fn end_before(&self, valid_after: Timestamp) -> bool {
        self.valid_after.fetch_max(valid_after.0, Ordering::SeqCst);
        self.is_void()
    }

    fn is_void(&self) -> bool {
        self.issued_at.load(Ordering::SeqCst) < self.valid_after.load(Ordering::SeqCst)
    }

    /// The connection follows the rooms of that version.
    pub(crate) fn follows(&self, membership: Membership) {
        self.membership.store(membership.0, Ordering::Relaxed);
    }

    /// True if the connection is known to follow the rooms of that version.
    pub(crate) fn is_at(&self, membership: Membership) -> bool {
        self.membership.load(Ordering::Relaxed) == membership.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_over_when_its_token_is_whatever_comes_first() {
        let rights = Rights::default();
        assert!(rights.live_by(Some(Timestamp(5))));
        assert!(!rights.end_before(Timestamp(5)), "a token of that very moment is good");
        assert!(rights.end_before(Timestamp(6)));
        let rights = Rights::default();
        assert!(!rights.end_before(Timestamp(6)), "it lives by no token yet");
        assert!(!rights.live_by(Some(Timestamp(5))));
        assert!(rights.live_by(Some(Timestamp(6))));
        assert!(!rights.live_by(None), "who does not say when was before any end");
    }

    #[test]
    fn a_new_session_follows_no_version() {
        let rights = Rights::default();
        assert!(!rights.is_at(Membership(0)));
        rights.follows(Membership(0));
        assert!(rights.is_at(Membership(0)) && !rights.is_at(Membership(1)));
    }
}
