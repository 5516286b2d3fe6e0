//! Postgres and RabbitMQ of one's own, for tests that stop, kill or pause them.
//!
//! A node keeps its data and its ports over its whole life.

use super::{address, run_script};
use crate::folder::Folder;
use crate::guard;
use crate::management::Management;
use crate::{PATIENCE, until};

/// What the broker calls its disk among the resources.
const DISK: &str = "disk space";

/// One server in a folder of its own.
#[derive(Debug)]
struct Node {
    service: &'static str,
    folder: Folder,
    lines: Vec<(String, String)>,
}

impl Node {
    async fn start(service: &'static str) -> Self {
        let folder = Folder::new();
        let lines = run_script(&["up", service], &folder.path().join("services")).await;
        Self { service, folder, lines }
    }

    async fn run(&self, verb: &str) {
        run_script(&[verb, self.service], &self.folder.path().join("services")).await;
    }

    async fn control(&self, verb: &str) {
        run_script(&[verb], &self.folder.path().join("services")).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let services = self.folder.path().join("services");
        drop(std::process::Command::new(guard::script()).arg("down").arg(services).output());
    }
}

macro_rules! private_node {
    ($(#[$doc:meta])* $name:ident, $service:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            node: Node,
        }

        impl $name {
            /// Starts a new, empty one and waits until it answers.
            pub async fn start() -> Self {
                Self { node: Node::start($service).await }
            }

            /// Starts it again on the same data and ports and waits until it answers.
            pub async fn start_again(&self) {
                self.node.run("start").await;
            }

            /// Stops it in good order.
            pub async fn stop(&self) {
                self.node.run("stop").await;
            }

            /// Kills all its processes.
            pub async fn kill9(&self) {
                self.node.run("kill9").await;
            }

            /// It lives, holds its connections and answers nothing.
            pub async fn pause(&self) {
                self.node.run("pause").await;
            }

            /// It answers again.
            pub async fn resume(&self) {
                self.node.run("resume").await;
            }
        }
    };
}

private_node!(
    /// A private RabbitMQ (starts in about five seconds).
    PrivateRabbit,
    "rabbitmq"
);
private_node!(
    /// A private Postgres (starts in about two seconds).
    PrivatePostgres,
    "postgres"
);

impl PrivateRabbit {
    /// It believes that its memory is full: it blocks whoever publishes.
    pub async fn raise_alarm(&self) {
        self.node.control("alarm").await;
    }

    /// Its memory is not full any more.
    pub async fn end_alarm(&self) {
        self.node.control("calm").await;
    }

    /// It believes that its disk is full: it blocks whoever publishes. Returns once it says so.
    pub async fn raise_disk_alarm(&self) {
        self.node.control("fulldisk").await;
        let management = self.management();
        until(PATIENCE, || async { management.alarms().await.is_ok_and(|alarms| alarms.contains(DISK)) }).await;
    }

    /// Its disk is not full any more. Returns once it says so.
    pub async fn end_disk_alarm(&self) {
        self.node.control("freedisk").await;
        let management = self.management();
        until(PATIENCE, || async { management.alarms().await.is_ok_and(|alarms| !alarms.contains(DISK)) }).await;
    }

    /// The URL of its default virtual host.
    pub fn url(&self) -> String {
        address(&self.node.lines, "TEST_RABBITMQ_URL")
    }

    /// The URL, with user and password, of its management API.
    pub fn management_url(&self) -> String {
        address(&self.node.lines, "TEST_RABBITMQ_MANAGEMENT_URL")
    }

    /// Its management API, for the default virtual host.
    pub fn management(&self) -> Management {
        Management::new(&self.management_url(), "/")
    }
}

impl PrivatePostgres {
    /// The URL of its database.
    pub fn url(&self) -> String {
        address(&self.node.lines, "TEST_DATABASE_URL")
    }
}
