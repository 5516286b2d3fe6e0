//! Which events wait for the next bundle, and when that is sent.
//!
//! A lane is one queue and one priority. While nothing of a lane is on its way, what comes is sent at once, all
//! that is there as one message; while something is, what comes waits for its confirm, so bundles form by
//! themselves under load and nobody waits on an idle system. Where much comes all lanes leave together, beat by beat, so
//! that what follows them can be one transaction. Pure: time comes from outside. The invariant: a
//! lane's events leave in the order in which they came, after those of a higher priority of the same queue, and none
//! waits longer than `PATIENCE` or a beat.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use runtime::Rate;
use tokio::time::Instant;

use crate::publish::Submission;

/// Events of one bundle: as many as cost the broker little more than one.
pub(super) const BUNDLE_EVENTS: usize = 32;
/// Bytes of one bundle's bodies, unless a single one has more.
pub(super) const BUNDLE_BYTES: usize = 64 * 1024;
/// From beat to beat, where much comes: a message costs the same however few events it holds.
pub(super) const BEAT: Duration = Duration::from_millis(40);
/// The same for a lane that is alone: nothing else of what a beat costs is shared.
const LONE_BEAT: Duration = Duration::from_millis(14);
/// So many events of all lanes within a beat are much.
const MUCH: f64 = 20.0;
/// The same for a lane that is alone.
const LONE_MUCH: f64 = 10.0;
/// So many of one lane are worth waiting for.
const COMPANY: f64 = 1.5;
/// How long an event waits for others' confirm, at most. Confirms take 2 to 5 ms.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// One queue and one priority. The order: queue by queue, the highest priority last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) class: domain::Class,
    pub(super) shard: u16,
    pub(super) priority: u8,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(Instant, Submission)>,
    bytes: usize,
    /// Messages on their way.
    in_flight: usize,
    rate: Rate,
}

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: BTreeMap<Lane, Queue>,
    waiting: usize,
    rate: Option<Rate>,
    /// When those left that leave together.
    last_beat: Option<Instant>,
}

impl Lanes {
    /// Takes an event up.
    pub(super) fn push(&mut self, lane: Lane, submission: Submission, now: Instant) {
        let queue = self.queues.entry(lane).or_insert_with(|| Queue::new(now));
        queue.rate.add(1, now);
        queue.bytes += submission.envelope.body.len();
        queue.waiting.push_back((now, submission));
        self.waiting += 1;
        self.rate.get_or_insert_with(|| Rate::new(now)).add(1, now);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A message of that lane is on its way no longer.
    pub(super) fn landed(&mut self, lane: Lane) {
        if let Some(queue) = self.queues.get_mut(&lane) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
        }
    }

    /// The next message that is to be sent now, if any: its lane, and its events.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Lane, Vec<Submission>)> {
        if self.waiting == 0 {
            return None;
        }
        let beat = self.beat(now);
        let (due, queue) = self.queues.iter().find(|(_, queue)| self.is_due(queue, beat, now))?;
        if beat.is_some() && queue.has_company(now) {
            self.last_beat = Some(now);
        }
        // What is more urgent goes with it, and first: as single messages they would not have changed places.
        let most_urgent = Lane { priority: u8::MAX, ..*due };
        let (lane, queue) = self.queues.range_mut(*due..=most_urgent).rfind(|(_, queue)| !queue.waiting.is_empty())?;
        let events = queue.take();
        self.waiting -= events.len();
        Some((*lane, events))
    }

    /// Gives up what waits.
    pub(super) fn clear(&mut self) {
        self.waiting = 0;
        for queue in self.queues.values_mut() {
            (queue.waiting, queue.bytes) = (VecDeque::new(), 0);
        }
    }

    /// When something has to be sent that waits now, whatever comes meanwhile.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let beat = self.beat(now);
        self.queues.values().filter_map(|queue| self.due(queue, beat, now)).min()
    }

    /// From beat to beat, if much comes.
    fn beat(&self, now: Instant) -> Option<Duration> {
        let events = self.rate?.within(BEAT, now);
        if events < LONE_MUCH {
            return None;
        }
        let is_alone = self.queues.values().filter(|queue| queue.has_company(now)).count() < 2;
        if is_alone { Some(LONE_BEAT) } else { (events >= MUCH).then_some(BEAT) }
    }

    fn is_due(&self, queue: &Queue, beat: Option<Duration>, now: Instant) -> bool {
        let is_full = queue.waiting.len() >= BUNDLE_EVENTS || queue.bytes >= BUNDLE_BYTES;
        is_full || self.due(queue, beat, now).is_some_and(|due| now >= due)
    }

    /// When a lane's first event leaves at the latest.
    fn due(&self, queue: &Queue, beat: Option<Duration>, now: Instant) -> Option<Instant> {
        let (since, _) = queue.waiting.front()?;
        let due = if let Some(beat) = beat.filter(|_| queue.has_company(now)) {
            // Those that leave at the same moment are one beat.
            self.last_beat.filter(|last| *last != now).map(|last| last + beat)
        } else {
            (queue.in_flight > 0).then(|| *since + PATIENCE)
        };
        Some(due.unwrap_or(*since))
    }
}

impl Queue {
    fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, in_flight: 0, rate: Rate::new(now) }
    }

    /// Whether it leaves with the others, beat by beat.
    fn has_company(&self, now: Instant) -> bool {
        self.rate.within(BEAT, now) >= COMPANY
    }

    fn take(&mut self) -> Vec<Submission> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some((_, next)) = self.waiting.front() {
            let more = next.envelope.body.len();
            if events.len() >= BUNDLE_EVENTS || (!events.is_empty() && bytes + more > BUNDLE_BYTES) {
                break;
            }
            bytes += more;
            events.extend(self.waiting.pop_front().map(|(_, submission)| submission));
        }
        self.bytes -= bytes;
        self.in_flight += 1;
        if self.waiting.is_empty() {
            // After a burst its room is given back.
            self.waiting = VecDeque::new();
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Gate;
    use crate::publish::tests::envelope;
    use domain::{Class, EventKind};

    const LANE: Lane = Lane { class: Class::High, shard: 0, priority: 8 };
    const URGENT: Lane = Lane { priority: 10, ..LANE };

    struct World {
        lanes: Lanes,
        start: Instant,
        number: u128,
    }

    impl World {
        fn new() -> Self {
            Self { lanes: Lanes::default(), start: Instant::now(), number: 0 }
        }

        fn push(&mut self, lane: Lane, count: usize, at_ms: u64) {
            let (gate, mut received) = Gate::new();
            for _ in 0..count {
                self.number += 1;
                drop(gate.submit(envelope(EventKind::MessageSend, self.number)));
                let submission = received.try_recv().expect("it was submitted");
                self.lanes.push(lane, submission, self.start + Duration::from_millis(at_ms));
            }
        }

        fn deadline(&self, at_ms: u64) -> Option<Instant> {
            self.lanes.deadline(self.start + Duration::from_millis(at_ms))
        }

        /// The ids of the next message's events.
        fn next(&mut self, at_ms: u64) -> Option<(Lane, Vec<u128>)> {
            let (lane, events) = self.lanes.next(self.start + Duration::from_millis(at_ms))?;
            Some((lane, events.iter().map(|it| it.envelope.job_id.0.as_u128()).collect()))
        }
    }

    #[tokio::test]
    async fn on_an_idle_lane_nothing_waits_and_behind_a_message_all_that_comes_is_one() {
        let mut world = World::new();
        world.push(LANE, 1, 0);
        assert_eq!(world.next(0), Some((LANE, vec![1])));
        world.push(LANE, 3, 1);
        assert_eq!(world.next(2), None);
        world.lanes.landed(LANE);
        assert_eq!(world.next(2), Some((LANE, vec![2, 3, 4])));
        assert_eq!((world.lanes.waiting(), world.deadline(2)), (0, None));
    }

    #[tokio::test]
    async fn where_much_comes_all_lanes_leave_together_beat_by_beat() {
        let mut world = World::new();
        let other = Lane { shard: 1, ..LANE };
        let mut sent = Vec::new();
        for ms in 0..400 {
            world.push(LANE, usize::from(ms % 2 == 0), ms);
            world.push(other, usize::from(ms % 8 == 0), ms);
            while let Some((lane, events)) = world.next(ms) {
                world.lanes.landed(lane);
                sent.push((ms, lane.shard, events.len()));
            }
        }
        assert_eq!(sent[0], (0, 0, 1), "the first one waits for nobody");
        let last: Vec<_> = sent[sent.len() - 8..].to_vec();
        for (index, beat) in last.chunks(2).enumerate() {
            let at = last[0].0 + index as u64 * BEAT.as_millis() as u64;
            assert_eq!(beat, [(at, 0, 20), (at, 1, 5)], "{last:?}");
        }
        assert_eq!(world.deadline(400), Some(world.start + Duration::from_millis(last[6].0) + BEAT));
        world.push(LANE, 1, 1_000);
        assert!(world.next(1_000).is_some(), "what came long ago is forgotten");
    }

    #[tokio::test]
    async fn a_lane_that_is_alone_waits_less() {
        let mut world = World::new();
        let mut sent = Vec::new();
        for ms in 0..400 {
            world.push(LANE, 1, ms);
            while let Some((lane, _)) = world.next(ms) {
                world.lanes.landed(lane);
                sent.push(ms);
            }
        }
        let last = &sent[sent.len() - 5..];
        assert!(last.windows(2).all(|two| two[1] - two[0] == LONE_BEAT.as_millis() as u64), "{sent:?}");
    }

    #[tokio::test]
    async fn a_full_bundle_ends_the_beat_for_all() {
        let mut world = World::new();
        let other = Lane { shard: 1, ..LANE };
        for ms in 0..200 {
            world.push(LANE, usize::from(ms % 2 == 0), ms);
            world.push(other, usize::from(ms % 2 == 0), ms);
            while let Some((lane, _)) = world.next(ms) {
                world.lanes.landed(lane);
            }
        }
        world.push(other, 1, 200);
        assert!(world.lanes.waiting() > 0, "the beat is not over");
        assert_eq!(world.next(200), None);
        world.push(LANE, BUNDLE_EVENTS, 200);
        let together: Vec<Lane> = std::iter::from_fn(|| world.next(200)).map(|(lane, _)| lane).collect();
        assert!(together.contains(&other), "{together:?}");
        assert_eq!(world.lanes.waiting(), 0);
    }

    #[tokio::test]
    async fn who_has_no_company_waits_for_nobody_however_much_comes_elsewhere() {
        let mut world = World::new();
        for ms in 0..200 {
            world.push(LANE, 1, ms);
            drop(world.next(ms));
            world.lanes.landed(LANE);
        }
        world.push(URGENT, 1, 200);
        assert_eq!(world.next(200).map(|(lane, _)| lane), Some(URGENT));
    }

    #[tokio::test]
    async fn lanes_do_not_wait_for_one_another() {
        let mut world = World::new();
        world.push(LANE, 2, 0);
        assert!(world.next(0).is_some());
        world.push(LANE, 1, 0);
        world.push(URGENT, 1, 0);
        assert_eq!(world.next(0), Some((URGENT, vec![4])));
        assert_eq!(world.next(0), None);
    }

    #[tokio::test]
    async fn what_is_more_urgent_is_not_overtaken_by_what_came_later() {
        let mut world = World::new();
        world.push(URGENT, 1, 0);
        assert!(world.next(0).is_some());
        world.push(URGENT, 2, 1);
        assert_eq!(world.next(1), None);
        world.push(LANE, 1, 2);
        world.push(Lane { shard: 1, ..LANE }, 1, 2);
        assert_eq!(world.next(2), Some((URGENT, vec![2, 3])));
        assert_eq!(world.next(2), Some((LANE, vec![4])));
        assert_eq!(world.next(2), Some((Lane { shard: 1, ..LANE }, vec![5])));
    }

    #[tokio::test]
    async fn what_is_given_up_is_gone_and_what_comes_then_is_bundled_as_before() {
        let mut world = World::new();
        world.push(LANE, 1, 0);
        assert!(world.next(0).is_some());
        world.push(LANE, 3, 0);
        world.lanes.clear();
        assert_eq!((world.next(60_000), world.lanes.waiting(), world.deadline(0)), (None, 0, None));
        world.push(LANE, 1, 1);
        assert_eq!(world.next(1), None);
        world.lanes.landed(LANE);
        assert_eq!(world.next(1), Some((LANE, vec![5])));
    }

    #[tokio::test]
    async fn a_full_bundle_and_what_waited_long_enough_leave_whatever_is_on_its_way() {
        let mut world = World::new();
        world.push(LANE, 1, 0);
        assert!(world.next(0).is_some());
        world.push(LANE, 1, 1);
        assert_eq!(world.next(1), None);
        assert_eq!(world.deadline(1), Some(world.start + Duration::from_millis(1) + PATIENCE));
        assert_eq!(world.next(1 + PATIENCE.as_millis() as u64).map(|(_, events)| events), Some(vec![2]));
        world.push(LANE, BUNDLE_EVENTS + 1, 12);
        assert_eq!(world.next(12).map(|(_, events)| events.len()), Some(BUNDLE_EVENTS));
        assert_eq!(world.next(12), Some((LANE, vec![35])), "so many are a beat of their own");
    }

    #[tokio::test]
    async fn a_bundle_is_bounded_in_bytes() {
        let mut world = World::new();
        let (gate, mut received) = Gate::new();
        for number in 1..=3 {
            let mut big = envelope(EventKind::MessageSend, number);
            big.body = vec![0; BUNDLE_BYTES / 2].into();
            drop(gate.submit(big));
            world.lanes.push(LANE, received.try_recv().expect("submitted"), world.start);
        }
        assert_eq!(world.next(0), Some((LANE, vec![1, 2])));
        assert_eq!(world.next(0), None);
    }
}
