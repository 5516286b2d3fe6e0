//! How far one connection has followed all of its rooms together, for the recovery of Socket.IO
//! connections.
//!
//! Knows no room. The invariant: a delivery is sound only if the client has everything of its rooms
//! with a smaller number by then.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use realtime::LogNumber;
use uuid::Uuid;

use crate::codec::Place;

/// Nothing is sound: the connection is still being opened, or its rooms are not all on.
const NOWHERE: u64 = u64::MAX;

/// How far a connection has followed.
#[derive(Debug)]
pub(crate) struct Followed {
    last: AtomicU64,
    /// By what the connection is recognised when it comes back.
    pid: OnceLock<Uuid>,
}

impl Default for Followed {
    fn default() -> Self {
        Self { last: AtomicU64::new(NOWHERE), pid: OnceLock::new() }
    }
}

impl Followed {
    /// The connection has everything up to a number, and is open in all of its rooms.
    pub(crate) fn begin(&self, after: LogNumber) {
        self.last.store(after.0, Ordering::SeqCst);
    }

    /// The connection does not follow all of its user's rooms any more.
    pub(crate) fn give_up(&self) -> Option<Uuid> {
        self.last.store(NOWHERE, Ordering::SeqCst);
        self.pid()
    }

    /// True while nothing is sound.
    pub(crate) fn has_given_up(&self) -> bool {
        self.last.load(Ordering::SeqCst) == NOWHERE
    }

    /// Notes by what the connection is recognised; the first word counts.
    pub(crate) fn recognise(&self, pid: Uuid) {
        let _ = self.pid.set(pid);
    }

    /// By what it is recognised, if it can be recovered.
    pub(crate) fn pid(&self) -> Option<Uuid> {
        self.pid.get().copied()
    }

    /// What a delivery that is `place` to the hub is to this connection. Only one task passes sound
    /// ones.
    pub(crate) fn place(&self, number: LogNumber, place: Place) -> Place {
        let last = self.last.load(Ordering::SeqCst);
        if place == Place::Void || !number.is_some() || number.0 <= last {
            return Place::Void;
        }
        let moved = self.last.compare_exchange(last, number.0, Ordering::SeqCst, Ordering::SeqCst);
        if moved.is_ok() { Place::Sound } else { Place::Void }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sound_while_they_grow() {
        let followed = Followed::default();
        assert_eq!(followed.place(LogNumber(5), Place::Sound), Place::Void, "not open yet");
        followed.begin(LogNumber(5));
        assert_eq!(followed.place(LogNumber(5), Place::Sound), Place::Void);
        assert_eq!(followed.place(LogNumber(7), Place::Sound), Place::Sound);
        assert_eq!(followed.place(LogNumber(6), Place::Sound), Place::Void);
        assert_eq!(followed.place(LogNumber(8), Place::Void), Place::Void);
        assert_eq!(followed.place(LogNumber::NONE, Place::Sound), Place::Void);
        assert_eq!(followed.place(LogNumber(9), Place::Sound), Place::Sound);
        followed.give_up();
        assert_eq!(followed.place(LogNumber(10), Place::Sound), Place::Void);
    }
}
