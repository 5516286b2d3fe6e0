//! Events whose own transaction never ends in time, told apart from a store that is slow or away.
//!
//! Pure. The invariant: an event is convicted only after `LONE_LIMIT` attempts by itself in a row that
//! the store gave up for the time they took, each followed by a moment in which everything answered
//! and nobody held a whole table; whatever else goes wrong counts for nothing. A conviction stands until it is
//! executed: whoever came with others in one message is received again until these are settled, too.
//!
//! Why none becomes a dead letter within a minute of a store that answers but is slow: such an attempt
//! lasts 2.5 s at least (a lock's limit; a statement's is longer). Four convictions of three attempts
//! each are 30 s, and the ladder between them waits 31 s. A table that is locked by a migration, a
//! missing right, a full disk count nothing at all; a row that somebody holds does.

use std::collections::VecDeque;

/// Lone attempts in vain, one after another, that convict.
const LONE_LIMIT: u32 = 3;
/// Batches in vain, one after another, after which events are tried one by one.
const VAIN_LIMIT: u32 = 2;
/// Convicted events that are remembered.
const KNOWN_LIMIT: usize = 256;

/// The event that was tried alone last.
struct Lone {
    job: String,
    in_vain: u32,
    /// What the store said.
    said: String,
}

/// An event that is convicted and may be received again.
struct Convict {
    job: String,
    /// How often it had failed before. Once it was executed it has failed once more.
    failures: u32,
    said: String,
}

/// What a worker has against some events.
#[derive(Default)]
pub(crate) struct Suspects {
    /// Batches given back one after another although everything answered in between.
    in_vain: u32,
    lone: Option<Lone>,
    /// The newest first.
    convicts: VecDeque<Convict>,
    /// Tried alone from now on, after the others of their batch.
    known: VecDeque<String>,
}

impl Suspects {
    /// Whether events are to be tried one by one, so that the culprit is found and its neighbours are
    /// done.
    pub(crate) fn is_anybody(&self) -> bool {
        self.in_vain >= VAIN_LIMIT
    }

    /// Whether the event was convicted before.
    pub(crate) fn is_known(&self, job: &str) -> bool {
        self.known.iter().any(|known| known == job)
    }

    /// A whole batch went through.
    pub(crate) fn went_well(&mut self) {
        (self.in_vain, self.lone) = (0, None);
    }

    /// A batch was given back because a dependency did not do its part; everything answered afterwards.
    pub(crate) fn in_vain(&mut self) {
        self.in_vain = self.in_vain.saturating_add(1);
    }

    /// The event, alone, took too long; everything answered afterwards.
    pub(crate) fn late(&mut self, job: &str, said: &str) {
        let before = self.lone.take().filter(|lone| lone.job == job).map_or(0, |lone| lone.in_vain);
        self.lone = Some(Lone { job: job.to_owned(), in_vain: before + 1, said: said.to_owned() });
    }

    /// Something did not answer: whatever was against anybody may have been its fault.
    pub(crate) fn acquit(&mut self) {
        self.went_well();
    }

    /// What the store said, if the event, which failed so often before, is convicted; it is remembered as known.
    pub(crate) fn convict(&mut self, job: &str, failures: u32) -> Option<String> {
        let is_same = |convict: &&Convict| convict.job == job && convict.failures == failures;
        if let Some(convict) = self.convicts.iter().find(is_same) {
            return Some(convict.said.clone());
        }
        let lone = self.lone.take_if(|lone| lone.job == job && lone.in_vain >= LONE_LIMIT)?;
        self.convicts.truncate(KNOWN_LIMIT - 1);
        self.convicts.push_front(Convict { job: job.to_owned(), failures, said: lone.said.clone() });
        if !self.is_known(job) {
            self.known.truncate(KNOWN_LIMIT - 1);
            self.known.push_front(lone.job);
        }
        Some(lone.said)
    }

    /// The convicted event is not received again.
    pub(crate) fn executed(&mut self, job: &str) {
        self.convicts.retain(|convict| convict.job != job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lone_attempts_in_a_row_convict_and_no_fewer() {
        let mut suspects = Suspects::default();
        for attempt in 0..LONE_LIMIT {
            assert_eq!(suspects.convict("p", 0), None, "after {attempt}");
            suspects.late("p", "57014");
        }
        assert_eq!(suspects.convict("q", 0), None, "another one");
        assert_eq!(suspects.convict("p", 0).as_deref(), Some("57014"));
        assert!(suspects.is_known("p") && !suspects.is_known("q"));
        suspects.executed("p");
        assert_eq!(suspects.convict("p", 0), None, "the next time it needs three again");
    }

    #[test]
    fn whoever_is_received_again_before_it_was_executed_stays_convicted_and_whoever_failed_since_does_not() {
        let mut suspects = Suspects::default();
        for job in ["p", "q"] {
            (0..LONE_LIMIT).for_each(|_| suspects.late(job, job));
            assert_eq!(suspects.convict(job, 2).as_deref(), Some(job));
        }
        suspects.acquit();
        for _ in 0..3 {
            assert_eq!(suspects.convict("p", 2).as_deref(), Some("p"));
            assert_eq!(suspects.convict("q", 2).as_deref(), Some("q"));
        }
        assert_eq!(suspects.convict("p", 3), None);
        suspects.executed("p");
        assert_eq!((suspects.convict("p", 2), suspects.convict("q", 2).as_deref()), (None, Some("q")));
    }

    #[test]
    fn an_outage_or_another_event_in_between_begins_the_count_anew() {
        let mut suspects = Suspects::default();
        for between in [Suspects::acquit, Suspects::went_well, |it: &mut Suspects| it.late("q", "late")] {
            (0..LONE_LIMIT - 1).for_each(|_| suspects.late("p", "late"));
            between(&mut suspects);
            suspects.late("p", "late");
            assert_eq!(suspects.convict("p", 0), None);
            suspects.acquit();
        }
    }

    #[test]
    fn two_batches_in_vain_make_everybody_suspect_until_one_goes_through() {
        let mut suspects = Suspects::default();
        suspects.in_vain();
        assert!(!suspects.is_anybody(), "an outage begins like this, too");
        suspects.in_vain();
        assert!(suspects.is_anybody());
        suspects.acquit();
        assert!(!suspects.is_anybody());
    }

    #[test]
    fn no_more_than_some_are_remembered_and_the_oldest_goes() {
        let mut suspects = Suspects::default();
        for number in 0..=KNOWN_LIMIT {
            let job = number.to_string();
            (0..LONE_LIMIT).for_each(|_| suspects.late(&job, "late"));
            assert!(suspects.convict(&job, 0).is_some());
        }
        assert_eq!((suspects.known.len(), suspects.convicts.len()), (KNOWN_LIMIT, KNOWN_LIMIT));
        assert!(!suspects.is_known("0") && suspects.is_known("1") && suspects.is_known("256"));
    }
}
