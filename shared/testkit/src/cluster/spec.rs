//! What a system is made of, and what a harness wants to do to it.
//!
//! Nothing is started before `start`.

use std::collections::BTreeMap;

use super::System;

/// What is prepared for faults; nothing, unless asked for.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Harness {
    pub(super) proxied: bool,
    pub(super) movable_clocks: bool,
    pub(super) limitable_files: bool,
}

/// What a system is made of.
#[derive(Debug, Default)]
pub struct SystemSpec {
    pub(super) env: BTreeMap<String, String>,
    pub(super) distributed: bool,
    pub(super) harness: Harness,
    gateways: usize,
    processors: usize,
    clocks_ahead_s: Vec<i64>,
}

impl SystemSpec {
    /// Everything in one process, on the embedded engine.
    pub fn all_in_one() -> Self {
        Self { gateways: 1, ..Self::default() }
    }

    /// So many gateways and processors, and an api, over real services.
    pub fn distributed(gateways: usize, processors: usize) -> Self {
        Self { gateways, processors, distributed: true, ..Self::default() }
    }

    /// Sets an environment variable for every program; it wins over what the system would set.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Lets the clocks of the gateways run ahead by so many seconds.
    #[must_use]
    pub fn clocks_ahead(mut self, seconds: &[i64]) -> Self {
        self.clocks_ahead_s = seconds.to_vec();
        self
    }

    /// Puts a proxy between every program and each service it uses, and one in front of every gateway
    /// and the api for clients; `System::proxies` has them.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.harness.proxied = true;
        self
    }

    /// Lets `Node::set_clock_ahead` move the clocks of the gateways while they run.
    #[must_use]
    pub fn movable_clocks(mut self) -> Self {
        self.harness.movable_clocks = true;
        self
    }

    /// Lets `Node::limit_file_size` be used.
    #[must_use]
    pub fn limitable_files(mut self) -> Self {
        self.harness.limitable_files = true;
        self
    }

    /// Starts it and waits until everything is ready.
    pub async fn start(self) -> System {
        let mut system = System::prepare(&self).await;
        if self.distributed {
            // The first one migrates while nobody else waits for it.
            system.nodes.push(system.start_node("api", 0).await);
        }
        let gateway = if self.distributed { "gateway" } else { "chatchit" };
        let ahead = |number: usize| self.clocks_ahead_s.get(number).copied().unwrap_or(0);
        let gateways = (0..self.gateways).map(|number| system.spawn_node(gateway, ahead(number)));
        let gateways = futures_util::future::join_all(gateways).await;
        let processors = (0..self.processors).map(|_| system.spawn_node("processor", 0));
        let processors = futures_util::future::join_all(processors).await;
        system.gateways = gateways;
        system.processors = processors;
        system.wait_ready().await;
        system
    }
}
