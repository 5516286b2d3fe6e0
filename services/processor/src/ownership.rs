//! Which shards this processor works on: leases, spread evenly over the live processors.
//!
//! A lease is held by a session of its own in the store and is gone the moment its holder dies. The
//! invariant: a worker runs only while its lease is held, and a lease is given up only after its
//! worker has settled everything.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::time::Duration;

use runtime::{Backoff, Shutdown, Tasks};
use store::StoreError;
use store::lease::{LeaseView, ShardLeases};
use telemetry::Gauge;
use uuid::Uuid;

use crate::worker::Orders;
use crate::{Parts, worker};

/// How often the leases are looked at; a dead processor's shards are taken over within two of these.
const TICK: Duration = Duration::from_millis(400);
/// How long a worker may take to settle what it holds.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(15);
/// How long it then takes to let go of everything at once.
const LET_GO_LIMIT: Duration = Duration::from_secs(1);
/// A share above the even one is taken only after the shard was free for so many ticks: another
/// processor that has less may want it.
const PATIENCE_TICKS: u32 = 2;

struct Worker {
    orders: Orders,
    done: Tasks,
}

impl Worker {
    fn start(parts: &Parts, shard: u16) -> Self {
        let orders = Orders::default();
        let done = Tasks::new(orders.stop.clone());
        done.own("shard worker", worker::run(parts.clone(), shard, orders.clone()));
        Self { orders, done }
    }

    /// Lets it settle what it holds, then waits for its end. If that takes too long it lets go as if
    /// it had died, so that it consumes no more when its lease is given up.
    async fn finish(&self) {
        self.orders.stop.request();
        if self.done.drained(HAND_OVER_LIMIT).await {
            return;
        }
        tracing::warn!("a shard worker did not end in time; its events are received again elsewhere");
        self.let_go().await;
    }

    /// Ends it at once: another may own the shard by now.
    async fn let_go(&self) {
        self.orders.let_go.request();
        self.orders.stop.request();
        if !self.done.drained(LET_GO_LIMIT).await {
            tracing::error!("a shard worker does not let go");
        }
    }
}

/// Holds this processor's fair share of shards until `tasks` is asked to stop.
pub(crate) async fn run(parts: Parts, tasks: Tasks) {
    let shutdown = tasks.shutdown().clone();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    while !shutdown.is_requested() {
        let holder = Uuid::now_v7();
        match parts.store.shard_leases(holder, parts.broker.shards()).await {
            Ok(leases) => {
                backoff.reset();
                let mut owner = Owner { parts: &parts, leases, workers: HashMap::new(), free_ticks: 0 };
                if let Err(error) = owner.hold(&shutdown).await {
                    tracing::warn!(%error, "the session that holds the shard leases is gone; letting everything go");
                    owner.let_all_go();
                }
                parts.duty.set(false);
                owner.stop_all().await;
            }
            Err(error) => tracing::warn!(%error, "no session for shard leases"),
        }
        if !shutdown.is_requested() {
            tokio::select! {
                () = shutdown.requested() => {}
                () = backoff.wait() => {}
            }
        }
    }
    Gauge::ShardsOwned.set(0.0);
}

struct Owner<'a> {
    parts: &'a Parts,
    leases: ShardLeases,
    workers: HashMap<u16, Worker>,
    free_ticks: u32,
}

impl Owner<'_> {
    /// Ticks until the stop is requested (`Ok`) or the session is lost (`Err`).
    async fn hold(&mut self, shutdown: &Shutdown) -> Result<(), StoreError> {
        while !shutdown.is_requested() {
            let view = self.leases.tick().await?;
            self.free_ticks = if view.free.is_empty() { 0 } else { self.free_ticks + 1 };
            self.leave_what_was_lost(&view.mine).await;
            self.work_on(&view.mine);
            self.parts.duty.set(view.mine.contains(&0));
            match decide(&view, self.free_ticks) {
                Step::Take(shards) => self.take(shards).await?,
                Step::GiveUp(shard) => self.give_up(shard).await?,
                Step::Stay => {}
            }
            Gauge::ShardsOwned.set(self.workers.len() as f64);
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        Ok(())
    }

    /// No worker goes on without its lease, however the lease was lost.
    async fn leave_what_was_lost(&mut self, mine: &[u16]) {
        let lost: HashMap<u16, Worker> = self.workers.extract_if(|shard, _| !mine.contains(shard)).collect();
        for shard in lost.keys() {
            tracing::warn!(shard, "a lease is gone; letting the shard go");
        }
        let letting_go: Vec<_> = lost.values().map(Worker::let_go).collect();
        futures_util::future::join_all(letting_go).await;
    }

    /// Every shard this processor has is worked on, and again if its worker ended.
    fn work_on(&mut self, mine: &[u16]) {
        for shard in mine {
            match self.workers.get(shard) {
                Some(worker) if !worker.done.failed() => continue,
                Some(_) => telemetry::Counter::TasksRestarted.inc_with("shard worker"),
                None => tracing::info!(shard, "took over a shard"),
            }
            self.workers.insert(*shard, Worker::start(self.parts, *shard));
        }
    }

    async fn take(&mut self, shards: Vec<u16>) -> Result<(), StoreError> {
        for shard in shards {
            if self.leases.try_take(shard).await? {
                self.work_on(&[shard]);
            }
        }
        Ok(())
    }

    /// Hands a shard over: its worker commits and settles everything, and only then is it free. The
    /// session is kept alive meanwhile; if it is lost, the worker is let go with all the others.
    async fn give_up(&mut self, shard: u16) -> Result<(), StoreError> {
        if let Some(worker) = self.workers.get(&shard) {
            keeping_alive(&mut self.leases, pin!(worker.finish())).await?;
        }
        self.workers.remove(&shard);
        self.leases.give_up(shard).await?;
        tracing::info!(shard, "handed a shard over");
        Ok(())
    }

    /// Others may own the shards by now: no worker may settle anything more in its own time.
    fn let_all_go(&self) {
        for worker in self.workers.values() {
            worker.orders.let_go.request();
        }
    }

    async fn stop_all(mut self) {
        let finishing: Vec<_> = self.workers.values().map(Worker::finish).collect();
        let mut finishing = pin!(futures_util::future::join_all(finishing));
        if keeping_alive(&mut self.leases, finishing.as_mut()).await.is_err() {
            // The session is gone; there is nothing to keep alive any more.
            finishing.await;
        }
        // Dropping the leases closes their session and frees them.
    }
}

/// Waits for something and keeps the session alive meanwhile; ends early when the session is lost.
async fn keeping_alive<T>(
    leases: &mut ShardLeases,
    mut wait: Pin<&mut impl Future<Output = T>>,
) -> Result<T, StoreError> {
    loop {
        tokio::select! {
            done = &mut wait => return Ok(done),
            () = tokio::time::sleep(TICK) => drop(leases.tick().await?),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take(Vec<u16>),
    GiveUp(u16),
    Stay,
}

/// One step towards an even spread: take what is missing to the even share; take more only if
/// nobody wanted it for a while; give one up if somebody has less than the even share.
fn decide(view: &LeaseView, free_ticks: u32) -> Step {
    let live = view.live.max(1);
    let held: usize = view.held.iter().sum();
    let shards = held.max(view.mine.len()) + view.free.len();
    let even = shards / live;
    let most = shards.div_ceil(live);
    let mine = view.mine.len();
    let want = if mine < even { even - mine } else { usize::from(free_ticks > PATIENCE_TICKS && mine < most) };
    if want > 0 && !view.free.is_empty() {
        return Step::Take(view.free.iter().copied().take(want).collect());
    }
    let poorest = if view.held.len() < live { 0 } else { view.held.iter().copied().min().unwrap_or(mine) };
    let somebody_waits = poorest < even && view.free.is_empty();
    match view.mine.iter().max() {
        Some(shard) if mine > even && somebody_waits => Step::GiveUp(*shard),
        _ => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that ends when it is let go and not before.
    fn stuck_worker() -> Worker {
        let orders = Orders::default();
        let done = Tasks::new(orders.stop.clone());
        let let_go = orders.let_go.clone();
        done.own("stuck", async move { let_go.requested().await });
        Worker { orders, done }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_finish_in_time_has_let_go_when_its_lease_is_given_up() {
        let worker = stuck_worker();
        worker.finish().await;
        assert!(worker.done.is_empty(), "it still consumes");
    }

    fn view(live: usize, mine: &[u16], free: &[u16], held: &[usize]) -> LeaseView {
        LeaseView { live, mine: mine.to_vec(), free: free.to_vec(), held: held.to_vec() }
    }

    #[test]
    fn alone_it_takes_everything() {
        assert_eq!(decide(&view(1, &[], &[0, 1, 2, 3], &[0]), 0), Step::Take(vec![0, 1, 2, 3]));
    }

    #[test]
    fn two_share_evenly_and_the_first_gives_up_what_is_too_much() {
        assert_eq!(decide(&view(2, &[0, 1, 2, 3], &[], &[4, 0]), 0), Step::GiveUp(3));
        assert_eq!(decide(&view(2, &[], &[3], &[3, 0]), 0), Step::Take(vec![3]));
        assert_eq!(decide(&view(2, &[0, 1], &[], &[2, 2]), 0), Step::Stay);
    }

    #[test]
    fn a_dead_neighbours_shards_are_taken_at_once() {
        assert_eq!(decide(&view(1, &[0, 1], &[2, 3], &[2]), 0), Step::Take(vec![2, 3]));
    }

    #[test]
    fn what_cannot_be_shared_evenly_is_taken_after_a_while_and_then_kept() {
        let view_of = |mine: &[u16], free: &[u16], held: &[usize]| view(3, mine, free, held);
        assert_eq!(decide(&view_of(&[0], &[3], &[1, 1, 1]), 0), Step::Stay);
        assert_eq!(decide(&view_of(&[0], &[3], &[1, 1, 1]), 3), Step::Take(vec![3]));
        assert_eq!(decide(&view_of(&[0, 3], &[], &[2, 1, 1]), 0), Step::Stay);
    }

    #[test]
    fn one_without_any_gets_one_from_those_above_the_even_share() {
        assert_eq!(decide(&view(3, &[0, 1], &[], &[2, 2, 0]), 0), Step::GiveUp(1));
    }

    #[test]
    fn more_processors_than_shards_is_no_trouble() {
        assert_eq!(decide(&view(6, &[0], &[], &[1, 1, 1, 1, 0, 0]), 0), Step::Stay);
        assert_eq!(decide(&view(6, &[], &[], &[1, 1, 1, 1, 0, 0]), 9), Step::Stay);
    }
}
