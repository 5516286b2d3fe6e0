//! The system under torture with its private services.
//!
//! The invariant: nobody else uses what stands here, so everything may be struck.

use std::time::Duration;

use anyhow::Context as _;
use testkit::cluster::{Node, System, SystemSpec};
use testkit::folder::{SmallDisk, small_disk};
use testkit::management::Management;
use testkit::services::{PrivatePostgres, PrivateRabbit};

use crate::fault::Who;
use crate::run::LATE_AFTER;

/// The all-in-one's disk, and how much of it a run takes at most, with room to spare.
const DISK_BYTES: u64 = 64 * 1024 * 1024;
const DISK_BYTES_PER_S: u64 = 256 * 1024;

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
    disk: Option<SmallDisk>,
}

impl Stage {
    /// Starts everything, for so long.
    pub async fn set(shape: Shape, defect: Option<&str>, length: Duration) -> Self {
        let unlimited = |spec: SystemSpec| {
            // Whoever lacks something until a beacon says so lacks it for too long.
            let beacons = format!("{}s", 4 * LATE_AFTER.as_secs());
            let spec = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0");
            let spec = spec.env("BEACON_EVERY", &beacons);
            let spec = spec.env("RUST_LOG", "info").proxied().movable_clocks();
            match defect {
                Some(defect) => spec.env("TEST_DEFECT", defect),
                None => spec,
            }
        };
        if shape == Shape::AllInOne {
            let disk = small_disk(DISK_BYTES + length.as_secs() * DISK_BYTES_PER_S);
            let spec = unlimited(SystemSpec::all_in_one()).limitable_files();
            let spec = match &disk {
                Some(disk) => spec.env("DATA_DIR", &disk.path().join("data").display().to_string()),
                None => spec,
            };
            return Self { system: spec.start().await, rabbit: None, postgres: None, disk };
        }
        let (rabbit, postgres) = tokio::join!(PrivateRabbit::start(), PrivatePostgres::start());
        let spec =
            SystemSpec::distributed(2, 2).env("RABBITMQ_URL", &rabbit.url()).env("DATABASE_URL", &postgres.url());
        let system = unlimited(spec).start().await;
        Self { system, rabbit: Some(rabbit), postgres: Some(postgres), disk: None }
    }

    /// The all-in-one's disk, where this account may mount one; else its files can be kept from growing.
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
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
