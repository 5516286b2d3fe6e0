//! What the way in makes of a long queue: presence and typing are shed, and over a limit what would
//! have to wait is refused with a time to come back at.
//!
//! Knows how much waits and not what. The invariant: nothing is refused for the queues' length while
//! that is not known, and what is most urgent is never refused for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, Depths};
use domain::{Class, EventKind};
use parking_lot::Mutex;
use protocol::Refusal;
use runtime::backoff::jittered;
use runtime::{Clock, Tasks};
use telemetry::{Counter, Gauge};
use tokio::sync::Notify;

use crate::line::{Line, Past};
use crate::shedding::Shedding;

/// How often the depth is looked at while it is far from every limit.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// How often it is at most, which is how often it is near a limit.
const SAMPLE_AT_MOST_EVERY: Duration = Duration::from_millis(200);
/// For so long the last judgement stands when the depth cannot be looked at.
const JUDGEMENT_FOR_US: u64 = 5_000_000;
/// Calls: what has this priority, or a higher one, is never refused for the queue's length.
const NEVER_REFUSED: u8 = 10;

/// How loaded the queues are.
pub(crate) struct Load {
    clock: Clock,
    high: Mutex<Line>,
    medium: Mutex<Line>,
    low: Mutex<Line>,
    shedding: Shedding,
    /// When the depth was last known.
    seen_us: AtomicU64,
    /// The depth should be looked at.
    look: Notify,
}

/// One event of this process on its way into a queue, for as long as it is held.
pub(crate) struct Entered {
    load: Arc<Load>,
    class: Class,
    is_confirmed: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.load.line(self.class).lock().settle(self.is_confirmed);
    }
}

impl Entered {
    /// It is in the queue.
    pub(crate) fn confirmed(&mut self) {
        self.is_confirmed = true;
    }

    /// The refusal of an event that the broker's side did not take.
    pub(crate) fn overloaded(&self) -> Refusal {
        let hint_ms = self.load.line(self.class).lock().hint_ms(self.load.clock.monotonic_us());
        overloaded(hint_ms)
    }
}

impl Load {
    fn new(limit: u32, clock: Clock) -> Self {
        let line = || Mutex::new(Line::new(limit.into()));
        Self {
            clock,
            high: line(),
            medium: line(),
            low: line(),
            shedding: Shedding::default(),
            seen_us: AtomicU64::new(0),
            look: Notify::new(),
        }
    }

    /// Looks at the broker's depth until the service stops. `limit`: ready events of a class; zero: none.
    pub(crate) fn watch(broker: Broker, limit: u32, clock: Clock, tasks: &Tasks) -> Arc<Self> {
        let load = Arc::new(Self::new(limit, clock));
        let (watched, shutdown) = (Arc::clone(&load), tasks.shutdown().clone());
        tasks.own("queue depth", async move {
            while !shutdown.is_requested() {
                let pause = async {
                    watched.sample(&broker).await;
                    watched.pause().await;
                };
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = pause => {}
                }
            }
        });
        load
    }

    /// Whether presence and typing are shed.
    pub(crate) fn sheds(&self) -> bool {
        self.shedding.is_on()
    }

    /// Lets an event in unless too many wait already.
    pub(crate) fn enter(self: &Arc<Self>, kind: EventKind) -> Result<Entered, Refusal> {
        self.enter_as(kind.class(), kind.priority())
    }

    fn enter_as(self: &Arc<Self>, class: Class, priority: u8) -> Result<Entered, Refusal> {
        let now_us = self.clock.monotonic_us();
        let mut entered = Ok(());
        self.judge(class, now_us, |line| {
            entered = line.enter(now_us, priority >= NEVER_REFUSED);
            if line.is_near(now_us) {
                self.look.notify_one();
            }
        });
        match entered {
            Ok(()) => Ok(Entered { load: Arc::clone(self), class, is_confirmed: false }),
            Err(hint_ms) => {
                Counter::Limited.inc_with("queued_events");
                Err(overloaded(hint_ms))
            }
        }
    }

    fn line(&self, class: Class) -> &Mutex<Line> {
        match class {
            Class::High => &self.high,
            Class::Medium => &self.medium,
            Class::Low => &self.low,
        }
    }

    async fn sample(&self, broker: &Broker) {
        let asked_us = self.clock.monotonic_us();
        let past = Class::ALL.map(|class| self.line(class).lock().past());
        // It also shows them as metrics.
        match broker.depths().await {
            Ok(depths) => self.note(depths, past, asked_us),
            Err(_) => self.miss(self.clock.monotonic_us()),
        }
    }

    fn note(&self, depths: Depths, past: [Past; 3], asked_us: u64) {
        self.seen_us.store(asked_us, Ordering::Relaxed);
        for (class, past) in Class::ALL.into_iter().zip(past) {
            let depth = match class {
                Class::High => depths.high,
                Class::Medium => depths.medium,
                Class::Low => depths.low,
            };
            self.judge(class, asked_us, |line| line.note(depth, past, asked_us));
        }
        self.shedding.judge(depths.high, self.low.lock().is_refusing());
    }

    /// Of a broker that does not answer nothing is known; publishing says so by itself. For a while
    /// the last judgement stands.
    fn miss(&self, now_us: u64) {
        if now_us.saturating_sub(self.seen_us.load(Ordering::Relaxed)) > JUDGEMENT_FOR_US {
            for class in Class::ALL {
                self.judge(class, now_us, Line::lose_sight);
            }
            self.shedding.judge(0, false);
        }
    }

    /// Changes what is known of a class, and tells when an overload begins or ends with that.
    fn judge(&self, class: Class, now_us: u64, change: impl FnOnce(&mut Line)) {
        let mut line = self.line(class).lock();
        change(&mut line);
        let (news, limit) = (line.news(now_us), line.limit());
        drop(line);
        if let Some((refusing, depth)) = news {
            tracing::warn!(%class, refusing, depth, limit, "whether new events are refused changed");
            Gauge::Overloaded.set_with(class.as_str(), f64::from(u8::from(refusing)));
        }
    }

    /// Until the next look: soon near a limit, later else, unless somebody comes near meanwhile.
    async fn pause(&self) {
        tokio::time::sleep(SAMPLE_AT_MOST_EVERY).await;
        let now_us = self.clock.monotonic_us();
        if Class::ALL.iter().any(|class| self.line(*class).lock().is_near(now_us)) {
            return;
        }
        tokio::select! {
            () = self.look.notified() => {}
            () = tokio::time::sleep(SAMPLE_EVERY.saturating_sub(SAMPLE_AT_MOST_EVERY)) => {}
        }
    }
}

/// Spread to up to the double, so that those who are refused together do not come back together.
fn overloaded(hint_ms: u64) -> Refusal {
    let spread = jittered(Duration::from_millis(2 * hint_ms));
    Refusal::overloaded(spread.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use protocol::Code;

    use super::*;

    fn load(limit: u32, depths: Depths) -> Arc<Load> {
        let load = Arc::new(Load::new(limit, Clock::system()));
        load.note(depths, [Past::default(); 3], load.clock.monotonic_us().max(1));
        load
    }

    #[test]
    fn each_class_is_refused_for_its_own_length() {
        let load = load(100, Depths { high: 200, medium: 50, ..Depths::default() });
        let refusal = load.enter(EventKind::MessageSend).err().expect("refused");
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(load.enter(EventKind::MessageEdit).is_ok());
    }

    #[test]
    fn what_is_most_urgent_is_never_refused_for_the_length() {
        let load = load(100, Depths { high: 1_000_000, ..Depths::default() });
        assert!(load.enter_as(Class::High, 9).is_err());
        assert!(load.enter_as(Class::High, 10).is_ok());
    }

    #[test]
    fn hints_are_spread_within_their_bounds() {
        let load = load(100, Depths { high: 1_000, ..Depths::default() });
        let hint = || load.enter(EventKind::MessageSend).err().and_then(|it| it.retry_after_ms).expect("a hint");
        let hints: std::collections::BTreeSet<u64> = (0..200).map(|_| hint()).collect();
        assert!(hints.len() > 100, "{hints:?}");
        assert!(hints.iter().all(|hint| (500..=30_000).contains(hint)), "{hints:?}");
    }

    #[test]
    fn the_last_judgement_stands_for_a_while_when_the_depth_is_not_known() {
        let load = load(100, Depths { high: 20_000, ..Depths::default() });
        let seen_us = load.seen_us.load(Ordering::Relaxed);
        load.miss(seen_us + JUDGEMENT_FOR_US);
        assert!(load.enter(EventKind::MessageSend).is_err() && load.sheds());
        load.miss(seen_us + JUDGEMENT_FOR_US + 1);
        assert!(load.enter(EventKind::MessageSend).is_ok() && !load.sheds());
    }

    #[test]
    fn too_much_typing_sheds_typing() {
        let load = load(100, Depths { low: 101, ..Depths::default() });
        assert!(load.sheds() && load.enter(EventKind::MessageSend).is_ok());
    }

    #[test]
    fn what_was_confirmed_or_given_up_is_on_its_way_no_longer() {
        let load = load(100, Depths::default());
        drop(load.enter(EventKind::MessageSend).expect("enters"));
        let held = load.enter(EventKind::MessageSend).expect("enters");
        assert_eq!(load.high.lock().past().settled, 1);
        drop(held);
        assert_eq!(load.high.lock().past().settled, 2);
    }
}
