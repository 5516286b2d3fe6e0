//! Whether deliveries may be given a place in the order of all rooms.
//!
//! Knows no room. The invariant: while anything is missing anywhere, as far as can be known, nothing
//! is sound.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use realtime::LogNumber;

use crate::codec::Place;

/// What may be missing, and how far the order has come.
#[derive(Debug, Default)]
pub(crate) struct Soundness {
    /// Rooms in which something is missing.
    gaps: AtomicUsize,
    /// How often something may have been lost, and for which of these it is known by now what.
    losses: AtomicU64,
    known_losses: AtomicU64,
    /// The largest number of a delivery so far.
    last_number: AtomicU64,
}

impl Soundness {
    /// Where a delivery with that number stands that has just come.
    pub(super) fn place(&self, number: LogNumber) -> Place {
        self.last_number.fetch_max(number.0, Ordering::SeqCst);
        let losses = self.losses.load(Ordering::SeqCst);
        let is_sound = self.gaps.load(Ordering::SeqCst) == 0 && self.known_losses.load(Ordering::SeqCst) == losses;
        if is_sound { Place::Sound } else { Place::Void }
    }

    /// A room that had a gap, or had none, has one now, or has none.
    pub(super) fn count_gap(&self, had: bool, has: bool) {
        match (had, has) {
            (false, true) => drop(self.gaps.fetch_add(1, Ordering::SeqCst)),
            (true, false) => drop(self.gaps.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        }
    }

    /// The largest number of a delivery so far.
    pub(crate) fn last_number(&self) -> LogNumber {
        LogNumber(self.last_number.load(Ordering::SeqCst))
    }

    /// From now on anything may be missing; see `losses_are_known`.
    pub(crate) fn note_loss(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
    }

    /// How often something may have been lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Of the first so many losses it is known what is missing, room by room.
    pub(crate) fn losses_are_known(&self, losses: u64) {
        self.known_losses.fetch_max(losses, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sound_while_anything_is_missing() {
        let sound = Soundness::default();
        let place = |number| sound.place(LogNumber(number));
        assert_eq!(place(7), Place::Sound);
        sound.count_gap(false, true);
        assert_eq!(place(5), Place::Void);
        sound.note_loss();
        sound.count_gap(true, false);
        assert_eq!(place(6), Place::Void);
        let losses = sound.losses();
        sound.note_loss();
        sound.losses_are_known(losses);
        assert_eq!(place(8), Place::Void, "once more since");
        sound.losses_are_known(sound.losses());
        assert_eq!((place(2), sound.last_number()), (Place::Sound, LogNumber(8)));
    }
}
