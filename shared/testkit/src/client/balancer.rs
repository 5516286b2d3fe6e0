//! What stands before gateways: round robin over those that say they are ready.
//!
//! Looks at `/readyz` as load balancers do, so it learns late of what happens. The invariant: there
//! is always an address; when none is ready, any will do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use runtime::Shutdown;

const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Several addresses, of which one is picked.
#[derive(Debug)]
pub struct Balancer {
    gateways: Vec<(String, AtomicBool)>,
    turn: AtomicUsize,
    http: reqwest::Client,
}

impl Balancer {
    /// Before gateways at these addresses (`http://host:port`), which are ready.
    pub fn new(urls: Vec<String>) -> Self {
        let gateways = urls.into_iter().map(|url| (url, AtomicBool::new(true))).collect();
        Self { gateways, turn: AtomicUsize::new(0), http: reqwest::Client::new() }
    }

    /// Where the next connection goes.
    pub fn pick(&self) -> &str {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let ready: Vec<_> = self.gateways.iter().filter(|gateway| gateway.1.load(Ordering::Relaxed)).collect();
        if ready.is_empty() { &self.gateways[turn % self.gateways.len()].0 } else { &ready[turn % ready.len()].0 }
    }

    /// Looks who is ready, until the end.
    pub async fn watch(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            for (url, is_ready) in &self.gateways {
                let answer = self.http.get(format!("{url}/readyz")).timeout(LOOK_LIMIT).send().await;
                is_ready.store(answer.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
