//! The system under torture with its private services.
//!
//! The invariant: nobody else uses what stands here, so everything may be struck.

use std::time::Duration;

use anyhow::Context as _;
use testkit::cluster::{Node, System, SystemSpec};
use testkit::management::Management;
use testkit::services::{PrivatePostgres, PrivateRabbit};

use crate::fault::Who;
use crate::run::LATE_AFTER;

/// How the system is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Two gateways, two processors and an api over Postgres, Redis and RabbitMQ.
    Distributed,
    /// Everything in one process on the embedded engine.
    AllInOne,
}

/// A system and its services.
pub struct Stage {
    /// The programs.
    pub system: System,
    rabbit: Option<PrivateRabbit>,
    postgres: Option<PrivatePostgres>,
}

impl Stage {
    /// Starts everything.
    pub async fn set(shape: Shape, defect: Option<&str>) -> Self {
        let unlimited = |spec: SystemSpec| {
            // Whoever lacks something until a beacon says so lacks it for too long.
            let beacons = format!("{}s", 2 * LATE_AFTER.as_secs());
            let spec = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0");
            let spec = spec.env("BEACON_EVERY", &beacons);
            let spec = spec.env("RUST_LOG", "info").proxied().movable_clocks();
            match defect {
                Some(defect) => spec.env("TEST_DEFECT", defect),
                None => spec,
            }
        };
        if shape == Shape::AllInOne {
            let system = unlimited(SystemSpec::all_in_one()).limitable_files().start().await;
            return Self { system, rabbit: None, postgres: None };
        }
        let (rabbit, postgres) = tokio::join!(PrivateRabbit::start(), PrivatePostgres::start());
        let spec =
            SystemSpec::distributed(2, 2).env("RABBITMQ_URL", &rabbit.url()).env("DATABASE_URL", &postgres.url());
        let system = unlimited(spec).start().await;
        Self { system, rabbit: Some(rabbit), postgres: Some(postgres) }
    }

    /// The private broker.
    pub fn rabbit(&self) -> anyhow::Result<&PrivateRabbit> {
        self.rabbit.as_ref().context("the all-in-one has no broker of its own")
    }

    /// The private database.
    pub fn postgres(&self) -> anyhow::Result<&PrivatePostgres> {
        self.postgres.as_ref().context("the all-in-one has no database of its own")
    }

    /// The broker as operators see it.
    pub fn management(&self) -> Option<Management> {
        self.rabbit.as_ref().map(PrivateRabbit::management)
    }

    /// A program; there is always one.
    pub fn node(&self, who: Who) -> &Node {
        let processors = &self.system.processors;
        match who {
            Who::Gateway(number) => self.system.gateway(number),
            Who::Processor(number) if !processors.is_empty() => &processors[number % processors.len()],
            Who::Api | Who::Processor(_) => self.system.api(),
        }
    }

    /// Starts what ended, as an orchestrator would, until everything is ready. Says which programs
    /// ended by themselves with another code than 2 (a dependency was not there at their start), and
    /// whether all are ready within `limit`.
    pub async fn recover(&self, limit: Duration) -> (Vec<String>, bool) {
        let mut ended = Vec::new();
        let end = tokio::time::Instant::now() + limit;
        loop {
            for node in self.system.all() {
                if let Some(status) = node.ended() {
                    if status.code() != Some(2) {
                        ended.push(format!("{} ended by itself: {status}", node.label()));
                    }
                    node.spawn_again();
                }
            }
            if self.system.not_ready(Duration::from_secs(3)).await.is_empty() {
                return (ended, true);
            }
            if tokio::time::Instant::now() >= end {
                return (ended, false);
            }
        }
    }
}
