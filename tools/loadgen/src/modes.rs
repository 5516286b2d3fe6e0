//! What each mode does once everybody is connected: schedules in an open loop.
//!
//! The invariant: what is due is due by the clock, however slow the server is; a send that is late is counted
//! from when it should have been.

use std::rc::Rc;
use std::time::Duration;

use rand::Rng as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::alarm::Alarm;
use crate::book::{Counts, now_us};
use crate::client::Client;
use crate::worker::Worker;

/// How often it is looked whether a connection has ended.
const TICK: Duration = Duration::from_millis(1);
/// Due times are looked at no more often.
const PAUSE_US: u64 = 250;
/// How often somebody else is drawn when the one drawn has nothing to say.
const DRAWS: usize = 16;

/// A steady stream of due times within a span, microseconds since 1970.
struct Due {
    start: u64,
    end: u64,
    every: f64,
    index: u64,
}

impl Due {
    fn next(&mut self, now: u64) -> Option<u64> {
        let due = self.at();
        (due <= now && due < self.end).then(|| {
            self.index += 1;
            due
        })
    }

    fn is_over(&self) -> bool {
        self.at() >= self.end
    }

    /// When the next is due.
    fn at(&self) -> u64 {
        self.start + (self.index as f64 * self.every) as u64
    }

    /// How long to sleep until something is due.
    fn pause(&self) -> Duration {
        Duration::from_micros(self.at().saturating_sub(now_us()).max(PAUSE_US))
    }
}

/// When a step runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Microseconds since 1970.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Of all workers together, per second.
    pub(crate) rate: f64,
}

impl Span {
    /// This worker's share.
    fn due(&self, worker: &Worker) -> Due {
        let every = 1e6 * f64::from(worker.threads) / self.rate;
        Due { start: self.start, end: self.end, every, index: 0 }
    }
}

/// Calls `act` for each due time.
async fn each(mut due: Due, mut act: impl FnMut(u64)) {
    let alarm = Alarm::new();
    while !due.is_over() {
        let now = now_us();
        while let Some(intended) = due.next(now) {
            act(intended);
        }
        alarm.sleep(due.pause()).await;
    }
}

/// Messages of `senders` of this worker's clients into their rooms.
pub(crate) async fn chat(worker: &Worker, span: Span, senders: usize) {
    if span.rate <= 0.0 {
        return sleep_until_us(span.end).await;
    }
    each(span.due(worker), |intended| {
        let somebody = worker.somebody(senders).filter(|client| !client.places.is_empty());
        let Some(client) = somebody else { return Counts::one(&worker.counts.skipped) };
        let place = client.places[rand::rng().random_range(0..client.places.len())];
        client.send_message(worker, place, intended);
    })
    .await;
}

/// People change how they stand. Whoever's last word has not been told yet is left alone: the server tells
/// only the last of several.
pub(crate) async fn presence(worker: &Worker, span: Span) {
    let Some(standings) = &worker.standings else { return };
    each(span.due(worker), |intended| {
        let somebody = || worker.somebody(usize::MAX).filter(|it| standings.partner(it.number).is_some());
        let word = || somebody().and_then(|it| Some((standings.say(it.number, intended)?, it)));
        let Some((status, client)) = (0..DRAWS).find_map(|_| word()) else {
            return Counts::one(&worker.counts.skipped);
        };
        Counts::one(&worker.counts.owed);
        client.set_presence(worker, status, intended);
    })
    .await;
}

/// Clients come and go: as many a second come in as leave, in turn.
pub(crate) async fn connects(worker: &Rc<Worker>, span: Span) {
    let clients = worker.clients.borrow().clone();
    let (mut openings, alarm) = (JoinSet::new(), Alarm::new());
    let mut due = span.due(worker);
    let mut next = clients.iter().cycle();
    while !due.is_over() {
        let now = now_us();
        while let Some(intended) = due.next(now) {
            let Some(client) = next.next() else { return };
            openings.spawn_local(again(Rc::clone(worker), Rc::clone(client), intended));
        }
        while openings.try_join_next().is_some() {}
        alarm.sleep(due.pause()).await;
    }
    openings.join_all().await;
}

/// Leaves, if it is there, and comes in anew.
async fn again(worker: Rc<Worker>, client: Rc<Client>, intended: u64) {
    client.say_goodbye();
    while client.is_ready() {
        sleep(TICK).await;
    }
    worker.open(client, intended).await;
}

/// All clients but the first `steady` of this worker lose their connections at once and come back within
/// `spread`, as stock clients do; ready when all are up to date.
pub(crate) async fn reconnect(worker: &Rc<Worker>, steady: usize, spread: Duration) {
    let clients: Vec<Rc<Client>> = worker.clients.borrow().iter().skip(steady).cloned().collect();
    let began = now_us();
    let mut returns = JoinSet::new();
    for client in clients {
        client.leave();
        let pause = spread.mul_f64(rand::rng().random_range(0.0..1.0));
        returns.spawn_local(come_back(Rc::clone(worker), client, began, pause));
    }
    returns.join_all().await;
}

async fn come_back(worker: Rc<Worker>, client: Rc<Client>, began: u64, pause: Duration) {
    sleep(pause).await;
    while client.is_ready() {
        sleep(TICK).await;
    }
    let positions = client.begin_to_catch_up();
    Rc::clone(&worker).open(Rc::clone(&client), 0).await;
    if client.is_ready() {
        client.catch_up(&worker, &positions, began);
    }
}

/// Waits for a time, microseconds since 1970.
pub(crate) async fn sleep_until_us(time: u64) {
    sleep_until(Instant::now() + Duration::from_micros(time.saturating_sub(now_us()))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_by_the_clock_and_ends() {
        let mut due = Due { start: 1_000, end: 2_000, every: 300.0, index: 0 };
        assert_eq!(due.next(999), None);
        assert_eq!(
            [due.next(1_700), due.next(1_700), due.next(1_700), due.next(1_700)],
            [Some(1_000), Some(1_300), Some(1_600), None]
        );
        assert!(!due.is_over());
        assert_eq!((due.next(5_000), due.next(5_000)), (Some(1_900), None));
        assert!(due.is_over());
    }
}
