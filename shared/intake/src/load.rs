//! What the way in makes of a long queue: presence and typing are shed, and over a limit what would
//! have to wait is refused with a time to come back at.
//!
//! Knows how much waits and not what. The invariant: nothing is refused for the queues' length while
//! that is not known, what is most urgent is never refused for it, and while messages are, nothing enters
//! that may be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, Depths};
use domain::shard::shard_of;
use domain::{Class, EventKind};
use parking_lot::Mutex;
use protocol::Refusal;
use realtime::Realtime;
use runtime::backoff::jittered;
use runtime::{Clock, Tasks};
use telemetry::{Counter, Gauge};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::line::Sample;
use crate::queues::{News, Queues};
use crate::shedding::Shedding;

/// How often the depth is looked at while it is far from every limit.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// How often it is at most, which is how often it is near a limit.
const SAMPLE_AT_MOST_EVERY: Duration = Duration::from_millis(200);
/// So long one waits at most for what was drained, for the depth is worth more.
const DRAINED_WITHIN: Duration = Duration::from_millis(500);
/// For so long the last judgement stands when the depth cannot be looked at.
const JUDGEMENT_FOR_US: u64 = 5_000_000;
/// Calls: what has this priority, or a higher one, is never refused for the queue's length.
const NEVER_REFUSED: u8 = 10;

/// How loaded the queues are.
pub(crate) struct Load {
    clock: Clock,
    /// How many shards each class has.
    shards: u16,
    classes: [Mutex<Queues>; 3],
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
    shard: u16,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.load.of(self.class).lock().settle(self.shard);
    }
}

impl Entered {
    /// The refusal of an event that the broker's side did not take.
    pub(crate) fn overloaded(&self) -> Refusal {
        let now_us = self.load.clock.monotonic_us();
        let hint_ms = self.load.of(self.class).lock().hint_ms(self.shard, now_us);
        overloaded(hint_ms)
    }
}

impl Load {
    /// Looks at nothing by itself. `limit`: as of `watch`.
    pub(crate) fn new(shards: u16, limit: u32, clock: Clock) -> Self {
        Self {
            clock,
            shards,
            classes: Class::ALL.map(|_| Mutex::new(Queues::new(shards, limit.into()))),
            shedding: Shedding::default(),
            seen_us: AtomicU64::new(0),
            look: Notify::new(),
        }
    }

    /// Looks at the broker's depth, and at what is drained, until the service stops. `limit`: ready events of
    /// a class; zero: none.
    pub(crate) fn watch(broker: Broker, realtime: Realtime, limit: u32, clock: Clock, tasks: &Tasks) -> Arc<Self> {
        let load = Arc::new(Self::new(broker.shards(), limit, clock));
        for class in Class::ALL {
            Gauge::Overloaded.set_with(class.as_str(), 0.0);
        }
        let (watched, shutdown) = (Arc::clone(&load), tasks.shutdown().clone());
        tasks.own("queue depth", async move {
            while !shutdown.is_requested() {
                let pause = async {
                    watched.sample(&broker, &realtime).await;
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
        self.shedding.is_on() || [Class::High, Class::Low].iter().any(|class| self.of(*class).lock().is_refusing())
    }

    /// Lets an event in unless too many wait already where it is to go; `key`: decides on its shard.
    pub(crate) fn enter(self: &Arc<Self>, kind: EventKind, key: Uuid) -> Result<Entered, Refusal> {
        self.enter_as(kind.class(), kind.priority(), shard_of(key, self.shards))
    }

    fn enter_as(self: &Arc<Self>, class: Class, priority: u8, shard: u16) -> Result<Entered, Refusal> {
        let now_us = self.clock.monotonic_us();
        let mut entered = Ok(());
        self.judge(class, |queues| {
            entered = queues.enter(shard, now_us, priority >= NEVER_REFUSED);
            if queues.is_near(shard, now_us) {
                self.look.notify_one();
            }
            queues.news_of(shard, now_us)
        });
        match entered {
            Ok(()) => Ok(Entered { load: Arc::clone(self), class, shard }),
            Err(hint_ms) => {
                Counter::Limited.inc_with("queued_events");
                Err(overloaded(hint_ms))
            }
        }
    }

    fn of(&self, class: Class) -> &Mutex<Queues> {
        &self.classes[class.index()]
    }

    async fn sample(&self, broker: &Broker, realtime: &Realtime) {
        let at_us = self.clock.monotonic_us();
        let settled = Class::ALL.map(|class| self.of(class).lock().settled());
        let drained = tokio::time::timeout(DRAINED_WITHIN, realtime.drained(self.shards));
        // It also shows the depths as metrics.
        match tokio::join!(broker.depths(), drained) {
            (Ok(depths), drained) => {
                let drained = drained.ok().and_then(Result::ok);
                self.note(&sampled(&depths, &settled, drained.as_deref(), at_us), at_us);
            }
            (Err(_), _) => self.miss(self.clock.monotonic_us()),
        }
    }

    /// Takes a sample of each shard, by class.
    pub(crate) fn note(&self, samples: &[Vec<Sample>; 3], at_us: u64) {
        self.seen_us.store(at_us, Ordering::Relaxed);
        for (class, samples) in Class::ALL.into_iter().zip(samples) {
            self.judge(class, |queues| {
                queues.note(samples);
                queues.news(at_us)
            });
        }
        self.shedding.judge(samples[Class::High.index()].iter().map(|sample| sample.depth).sum());
    }

    /// Of a broker that does not answer nothing is known; publishing says so by itself. For a while
    /// the last judgement stands.
    fn miss(&self, now_us: u64) {
        if now_us.saturating_sub(self.seen_us.load(Ordering::Relaxed)) > JUDGEMENT_FOR_US {
            for class in Class::ALL {
                self.judge(class, |queues| {
                    queues.lose_sight();
                    queues.news(now_us)
                });
            }
            self.shedding.judge(0);
        }
    }

    /// Changes what is known of a class, and tells when an overload begins or ends with that.
    fn judge(&self, class: Class, change: impl FnOnce(&mut Queues) -> Vec<News>) {
        let mut queues = self.of(class).lock();
        let news = change(&mut queues);
        let is_overloaded = !news.is_empty() && queues.is_overloaded();
        drop(queues);
        for News { shard, begins: refusing, depth, limit } in &news {
            let what =
                if *refusing { "too many events wait: new ones are refused" } else { "new events are accepted again" };
            tracing::warn!(%class, shard, depth, limit, "{what}");
        }
        if !news.is_empty() {
            Gauge::Overloaded.set_with(class.as_str(), f64::from(u8::from(is_overloaded)));
        }
    }

    /// Until the next look: soon near a limit, later else, unless somebody comes near meanwhile.
    async fn pause(&self) {
        tokio::time::sleep(SAMPLE_AT_MOST_EVERY).await;
        let now_us = self.clock.monotonic_us();
        if Class::ALL.iter().any(|class| self.of(*class).lock().is_any_near(now_us)) {
            return;
        }
        tokio::select! {
            () = self.look.notified() => {}
            () = tokio::time::sleep(SAMPLE_EVERY.saturating_sub(SAMPLE_AT_MOST_EVERY)) => {}
        }
    }
}

/// What was seen of each shard at that moment, by class.
pub(crate) fn sampled(
    depths: &Depths,
    settled: &[Vec<u64>; 3],
    drained: Option<&[[u64; 3]]>,
    at_us: u64,
) -> [Vec<Sample>; 3] {
    Class::ALL.map(|class| {
        let of_class = |(shard, ready): (usize, &[u64; 3])| Sample {
            depth: ready[class.index()],
            settled: settled[class.index()].get(shard).copied().unwrap_or_default(),
            drained: drained.and_then(|totals| totals.get(shard)).map(|totals| totals[class.index()]),
            at_us,
        };
        depths.shards.iter().enumerate().map(of_class).collect()
    })
}

/// Spread to up to the double, so that those who are refused together do not come back together.
fn overloaded(hint_ms: u64) -> Refusal {
    let spread = jittered(Duration::from_millis(2 * hint_ms));
    Refusal::overloaded(spread.as_millis() as u64)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
