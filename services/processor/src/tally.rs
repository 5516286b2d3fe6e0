//! How many events of each shard and class this process has settled, told to those who let new ones in.
//!
//! Off the path of messages: to count is an addition, and nobody waits for the telling. The invariant: what
//! could not be told is told the next time.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use realtime::RealtimeError;
use runtime::Shutdown;
use runtime::backoff::jittered;

use crate::Parts;

/// Often enough for a second to show how fast it goes.
const EVERY: Duration = Duration::from_millis(250);

/// What was settled and not told yet, by shard, then by class.
#[derive(Default)]
pub(crate) struct Tally(Mutex<BTreeMap<u16, [u64; 3]>>);

impl Tally {
    /// So many more of each class of a shard, in the order of [`domain::Class::ALL`].
    pub(crate) fn add(&self, shard: u16, events: [u64; 3]) {
        let mut untold = self.0.lock();
        let untold = untold.entry(shard).or_default();
        untold.iter_mut().zip(events).for_each(|(untold, events)| *untold += events);
    }

    /// What was not told yet; from now on it counts as told.
    pub(crate) fn take(&self) -> Vec<(u16, [u64; 3])> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }
}

pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    let mut was_told = true;
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(jittered(EVERY)) => {}
        }
        let told = tell(&parts).await;
        if let Err(error) = &told
            && was_told
        {
            tracing::warn!(%error, "how much is drained cannot be told; it will be");
        }
        was_told = told.is_ok();
    }
}

async fn tell(parts: &Parts) -> Result<(), RealtimeError> {
    let settled = parts.tally.take();
    if settled.is_empty() {
        return Ok(());
    }
    let untold = |_: &RealtimeError| settled.iter().for_each(|(shard, events)| parts.tally.add(*shard, *events));
    parts.realtime.count_drained(&settled).await.inspect_err(untold)
}

#[cfg(test)]
mod tests {
    use realtime::{Realtime, RealtimeSettings};
    use runtime::Tasks;
    use testkit::services::RedisServer;
    use testkit::{PATIENCE, until};

    use super::*;
    use crate::bench::Bench;

    #[tokio::test]
    async fn it_is_told_soon_and_what_could_not_be_told_is_told_later() {
        let (redis, mut bench) = (RedisServer::start().await, Bench::over(&[]).await);
        let tasks = Tasks::new(Shutdown::new());
        let settings = RealtimeSettings::Redis { url: redis.url() };
        bench.parts.realtime = Realtime::open(settings, &tasks).await.expect("opens");
        let parts = &bench.parts;
        tasks.own("tally", run(parts.clone(), tasks.shutdown().clone()));
        let told = async |is_so: fn(&[[u64; 3]]) -> bool| {
            until(PATIENCE, || async { parts.realtime.drained(2).await.is_ok_and(|totals| is_so(&totals)) }).await;
        };
        parts.tally.add(1, [200, 0, 1]);
        parts.tally.add(0, [0, 7, 0]);
        told(|totals| totals == [[0, 7, 0], [200, 0, 1]]).await;
        redis.stop().await;
        parts.tally.add(1, [3, 0, 0]);
        assert!(tell(parts).await.is_err());
        parts.tally.add(1, [2, 0, 0]);
        redis.start_again().await;
        told(|totals| totals[1][0] % 200 == 5).await;
    }
}
