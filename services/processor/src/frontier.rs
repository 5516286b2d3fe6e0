//! How far the messages of a shard are worked off: whether one that an event points at may still be waiting.
//!
//! What changes a message overtakes messages, and after an outage more of these may wait than are worked off while
//! that climbs the whole ladder. The invariant: an event is only told that its message does not exist when all
//! messages that were accepted before it had their turn.

use std::time::Duration;

use broker::Incoming;
use domain::{Class, Timestamp};
use handlers::Job;

/// So much the clocks of gateways may differ from one another and from ours.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(10);
/// No message came for so long, though other events did: none waits.
const QUIET_AFTER: Duration = Duration::from_secs(3);
/// Nobody waits for a message for longer, whatever the clocks say.
const PATIENCE: Duration = Duration::from_mins(15);

/// What a worker saw of the messages of its shard.
#[derive(Debug, Default)]
pub(crate) struct Frontier {
    /// When the newest of those was accepted that had their turn.
    newest: Option<Timestamp>,
    /// When the last one came, or the consumer began; by the monotonic clock.
    last_came_us: u64,
    now_us: u64,
}

impl Frontier {
    /// A consumer begins: what another one held comes again.
    pub(crate) fn begin(&mut self, now_us: u64) {
        *self = Self { newest: None, last_came_us: now_us, now_us };
    }

    /// Looks at all that came at once.
    pub(crate) fn came(&mut self, received: &[Incoming], now_us: u64) {
        if received.iter().any(|incoming| incoming.class == Class::High) {
            self.last_came_us = now_us;
        }
        self.now_us = now_us;
    }

    /// Notes that these had their turn.
    pub(crate) fn passed<'a>(&mut self, jobs: impl Iterator<Item = &'a Job>) {
        let is_new_message = |job: &&Job| job.event.kind.class() == Class::High && job.first_failed_at.is_none();
        self.newest = self.newest.max(jobs.filter(is_new_message).map(|job| job.event.accepted_at).max());
    }

    /// True when no message waits any more that was accepted before an event which first failed then.
    pub(crate) fn is_past(&self, first_failed_at: Option<Timestamp>, now: Timestamp) -> bool {
        let Some(failed_at) = first_failed_at else { return true };
        let is_quiet = Duration::from_micros(self.now_us - self.last_came_us) >= QUIET_AFTER;
        let is_newer = self.newest.is_some_and(|newest| newest >= failed_at.plus(CLOCKS_DIFFER_BY));
        is_quiet || is_newer || now >= failed_at.plus(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use broker::Incoming;
    use domain::JobId;
    use protocol::VerifiedEnvelope;
    use protocol::wire::{MessageEdit, MessageSend};

    use super::*;

    const FAILED: Timestamp = Timestamp(1_800_000_000_000);
    const SECOND: u64 = 1_000_000;

    fn after(seconds: u64) -> Timestamp {
        FAILED.plus(Duration::from_secs(seconds))
    }

    fn job(change: protocol::Change, accepted_at: Timestamp) -> Job {
        let event = VerifiedEnvelope {
            job_id: JobId::generate(),
            kind: protocol::envelope::kind_of(&change),
            room_id: domain::RoomId::generate(),
            actor: domain::UserId::generate(),
            device_id: String::new(),
            accepted_at,
            traceparent: None,
            change,
        };
        Job { event, redelivered: false, first_failed_at: None, last_attempt: false }
    }

    fn message(accepted_at: Timestamp) -> Job {
        job(protocol::Change::MessageSend(MessageSend::default()), accepted_at)
    }

    fn begun() -> Frontier {
        let mut frontier = Frontier::default();
        frontier.begin(SECOND);
        frontier
    }

    #[test]
    fn messages_that_were_accepted_later_had_their_turn() {
        let mut frontier = begun();
        assert!(!frontier.is_past(Some(FAILED), after(31)), "nothing is known");
        frontier.passed([message(after(9)), message(after(2))].iter());
        assert!(!frontier.is_past(Some(FAILED), after(31)), "clocks differ");
        let retried = Job { first_failed_at: Some(FAILED), ..message(after(20)) };
        frontier.passed([job(protocol::Change::MessageEdit(MessageEdit::default()), after(20)), retried].iter());
        assert!(!frontier.is_past(Some(FAILED), after(31)), "neither stands in the queue of messages");
        frontier.passed([message(after(10))].iter());
        assert!(frontier.is_past(Some(FAILED), after(31)));
        frontier.begin(2 * SECOND);
        assert!(!frontier.is_past(Some(FAILED), after(31)), "what was held comes again");
    }

    #[test]
    fn no_message_came_for_a_while() {
        let mut frontier = begun();
        let nothing: [Incoming; 0] = [];
        frontier.came(&nothing, 3 * SECOND);
        assert!(!frontier.is_past(Some(FAILED), after(31)));
        frontier.came(&nothing, 4 * SECOND);
        assert!(frontier.is_past(Some(FAILED), after(31)));
    }

    #[test]
    fn nobody_waits_for_ever() {
        assert!(!begun().is_past(Some(FAILED), after(899)));
        assert!(begun().is_past(Some(FAILED), after(900)));
        assert!(begun().is_past(None, FAILED), "nothing says when");
    }
}
