//! A whole system: the all-in-one, or gateways, processors and an api over real services.
//!
//! Tests that hold for both ask for gateways by number and do not care which of the two it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use parking_lot::Mutex;

use super::launch::Launch;
use super::links::{Links, Service};
use super::spec::{Harness, SystemSpec};
use super::{Node, NodeSpec};
use crate::client::{Person, Rest, token};
use crate::folder::Folder;
use crate::management::Management;
use crate::proxy::Proxy;
use crate::services::{RedisServer, free_port, fresh_postgres, fresh_rabbitmq, management_url};
use crate::until;

/// The secret of access tokens in tests.
pub const SECRET: &str = "a secret of tests that is long enough";

/// A signing key for tests: `kid:base64`, a function of its id.
pub fn hmac_key(id: &str) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = id.bytes().cycle().take(40).collect();
    format!("{id}:{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The first line of a program's log that tells of a panic: in the words of its log, of the language, or of
/// whoever owned the task.
pub fn panic_in(log: &str) -> Option<&str> {
    let signs = ["\"message\":\"panic\"", "panicked at", "a task panicked"];
    log.lines().find(|line| signs.iter().any(|sign| line.contains(sign)))
}

/// A running system. Dropping it ends its processes, then its services.
#[derive(Debug)]
pub struct System {
    pub(super) nodes: Vec<Node>,
    pub(super) gateways: Vec<Node>,
    /// The processors; none in the all-in-one. Tests may add and remove some.
    pub processors: Vec<Node>,
    env: BTreeMap<String, String>,
    management: Option<Management>,
    redis: Option<RedisServer>,
    harness: Harness,
    /// How many of each program there were so far.
    started: Mutex<BTreeMap<&'static str, usize>>,
    folder: Folder,
}

/// How a processor is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// SIGTERM, and so long for its orderly end.
    Terminate(Duration),
    /// SIGKILL.
    Kill9,
}

impl System {
    pub(super) async fn prepare(spec: &SystemSpec) -> Self {
        let folder = Folder::new();
        let text = |name: &str, value: String| (name.to_owned(), value);
        let mut env = BTreeMap::from([
            text("HOST", "127.0.0.1".into()),
            text("APP_ENV", "test".into()),
            text("LOG_FORMAT", "json".into()),
            text("JWT_ACCESS_TOKEN", SECRET.into()),
            text("HMAC_KEYS", hmac_key("k1")),
            text("LIMIT_LOGINS_PER_MIN", "0".into()),
            // A client that comes back again and again counts as many devices here.
            text("LIMIT_USER_DEVICES", "0".into()),
            text("STARTUP_WAIT", "30s".into()),
        ]);
        let (mut management, mut redis) = (None, None);
        if spec.distributed {
            if !spec.env.contains_key("DATABASE_URL") {
                env.insert("DATABASE_URL".into(), fresh_postgres().await);
            }
            if !spec.env.contains_key("RABBITMQ_URL") {
                let url = fresh_rabbitmq().await;
                let vhost = url.rsplit_once('/').expect("a URL with a virtual host").1;
                management = Some(Management::new(&management_url().await, vhost));
                env.insert("RABBITMQ_URL".into(), url);
            }
            if !spec.env.contains_key("REDIS_URL") {
                let server = RedisServer::start().await;
                env.insert("REDIS_URL".into(), server.url());
                redis = Some(server);
            }
        } else {
            env.insert("DATA_DIR".into(), folder.path().join("data").display().to_string());
        }
        env.extend(spec.env.clone());
        let (harness, started) = (spec.harness, Mutex::default());
        Self { nodes: vec![], gateways: vec![], processors: vec![], env, management, redis, harness, started, folder }
    }

    /// How this system would start one more of a program: a port and a log of its own. Always without
    /// proxies.
    pub fn spec(&self, program: &'static str, clock_ahead_s: i64) -> NodeSpec {
        self.labelled_spec(program, clock_ahead_s).1
    }

    fn labelled_spec(&self, program: &'static str, clock_ahead_s: i64) -> (String, NodeSpec) {
        let mut started = self.started.lock();
        let all: usize = started.values().sum();
        let number = started.entry(program).or_default();
        let label = format!("{program}-{number}");
        *number += 1;
        let mut env = self.env.clone();
        env.insert("PORT".to_owned(), free_port().to_string());
        let log = self.folder.path().join(format!("{all:02}-{program}.log"));
        (label, NodeSpec { program, env, clock_ahead_s, log })
    }

    /// Starts one more of a program with what the harness wants, without waiting for anything.
    pub(super) async fn spawn_node(&self, program: &'static str, clock_ahead_s: i64) -> Node {
        let (label, mut spec) = self.labelled_spec(program, clock_ahead_s);
        let links = if self.harness.proxied { Links::put(program, &mut spec.env).await } else { Links::default() };
        let has_clients = matches!(program, "gateway" | "chatchit");
        let mut launch = Launch { clock: None, limitable: self.harness.limitable_files };
        if self.harness.movable_clocks && has_clients {
            launch.clock = Some(spec.log.with_extension("clock"));
            launch.set_clock_ahead(clock_ahead_s);
        }
        Node::spawn(spec, launch).behind(label, links)
    }

    pub(super) async fn start_node(&self, program: &'static str, clock_ahead_s: i64) -> Node {
        let node = self.spawn_node(program, clock_ahead_s).await;
        node.wait_ready().await;
        node
    }

    /// Starts one more processor.
    pub async fn add_processor(&mut self) {
        let processor = self.start_node("processor", 0).await;
        self.processors.push(processor);
    }

    /// Starts one more processor without waiting until it is ready: it cannot be while a service is away.
    pub async fn spawn_processor(&mut self) -> &Node {
        let processor = self.spawn_node("processor", 0).await;
        self.processors.push(processor);
        self.processors.last().expect("it was pushed")
    }

    /// Takes the processor of that place away, with its proxies. Returns how it ended; `None` when
    /// SIGTERM did not end it in time, and it was killed.
    pub async fn remove_processor(&mut self, place: usize, how: Removal) -> Option<ExitStatus> {
        let processor = self.processors.remove(place);
        let ended = match how {
            Removal::Terminate(limit) => processor.try_terminate(limit).await,
            Removal::Kill9 => None,
        };
        if ended.is_none() {
            processor.kill9().await;
        }
        if how == Removal::Kill9 { processor.ended() } else { ended }
    }

    /// All proxies: the program's label (`gateway-0`), who is on the other side, the proxy. None unless
    /// the system was started with `SystemSpec::proxied`.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, Service, &Proxy)> {
        self.all().flat_map(|node| node.proxies().map(|(service, proxy)| (node.label(), service, proxy)))
    }

    /// The proxy between a gateway and its clients.
    pub fn gateway_proxy(&self, number: usize) -> &Proxy {
        self.gateway(number).proxy(Service::Clients).expect("`SystemSpec::proxied` was asked for")
    }

    /// Where its programs' logs lie, and the data of an all-in-one.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The gateways, in their order.
    pub fn gateways(&self) -> &[Node] {
        &self.gateways
    }

    /// A gateway by number; the all-in-one is every gateway.
    pub fn gateway(&self, number: usize) -> &Node {
        &self.gateways[number % self.gateways.len()]
    }

    /// What serves REST.
    pub fn api(&self) -> &Node {
        self.nodes.first().unwrap_or(&self.gateways[0])
    }

    /// Whatever applies events: the first processor, or the all-in-one.
    pub fn applier(&self) -> &Node {
        self.processors.first().unwrap_or(&self.gateways[0])
    }

    /// All programs.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(&self.gateways).chain(&self.processors)
    }

    /// True when it stands on real services.
    pub fn is_distributed(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The broker's management API of this system's virtual host.
    pub fn management(&self) -> &Management {
        self.management.as_ref().expect("a distributed system on the shared broker")
    }

    /// This system's own Redis.
    pub fn redis(&self) -> &RedisServer {
        self.redis.as_ref().expect("a distributed system with its own Redis")
    }

    /// A value of the environment that all programs share.
    pub fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    /// Sets a value of the environment for every program started or restarted from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
        for node in self.all() {
            node.set_env(name, value);
        }
    }

    /// REST as nobody.
    pub fn rest(&self) -> Rest {
        Rest::new(&self.api().url())
    }

    /// Registers people of these first names; they can log in with `Person::PASSWORD`.
    pub async fn people<const N: usize>(&self, names: [&str; N]) -> [Person; N] {
        let mut people = Vec::with_capacity(N);
        for name in names {
            people.push(Person::register(&self.rest(), name).await);
        }
        people.try_into().unwrap_or_else(|_| unreachable!("as many people as names"))
    }

    /// A token for `user` that the system did not issue itself.
    pub fn token_for(&self, user: &str) -> String {
        self.token_lasting(user, 3600)
    }

    /// A token for `user` that is valid for so many seconds.
    pub fn token_lasting(&self, user: &str, lifetime_s: i64) -> String {
        token::mint(SECRET, user, lifetime_s)
    }

    /// Waits until all programs say they are ready.
    pub async fn wait_ready(&self) {
        for node in self.all() {
            node.wait_ready().await;
        }
    }

    /// Waits until all programs say they are ready, except those that are paused: the labels of those
    /// that are not by `limit`, or have ended.
    pub async fn not_ready(&self, limit: Duration) -> Vec<String> {
        let awaited: Vec<&Node> = self.all().filter(|node| !node.is_paused()).collect();
        let states = futures_util::future::join_all(awaited.iter().map(|node| node.try_wait_ready(limit))).await;
        let late = awaited.iter().zip(states).filter(|(_, is_ready)| !is_ready);
        late.map(|(node, _)| node.label().to_owned()).collect()
    }

    /// Waits until no program says it is ready; panics when one still does after `limit`.
    pub async fn wait_not_ready(&self, limit: Duration) {
        until(limit, || async {
            let states = futures_util::future::join_all(self.all().map(Node::readyz)).await;
            states.iter().all(|state| *state == Some(503))
        })
        .await;
    }

    /// Panics when a program panicked or ended by itself.
    pub fn assert_healthy(&self) {
        for node in self.all() {
            assert!(node.ended().is_none(), "a program ended:\n{}", node.log_tail());
            let log = node.log();
            let panic = panic_in(&log);
            assert!(panic.is_none(), "{panic:?} in\n{}", node.log_tail());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_in_whatever_words_it_is_told() {
        let of_a_program =
            r#"{"timestamp":"2026-01-31T09:30:00Z","level":"ERROR","message":"panic","place":"a.rs:1:1"}"#;
        let of_the_language = "thread 'main' (17) panicked at a.rs:1:1:";
        let of_an_owner = r#"{"level":"ERROR","message":"a task panicked","task":"health"}"#;
        for line in [of_a_program, of_the_language, of_an_owner] {
            assert_eq!(panic_in(&format!("{{\"message\":\"ready\"}}\n{line}\nlast")), Some(line));
        }
        assert_eq!(panic_in("{\"message\":\"nobody panics\",\"content\":\"panic\"}\n"), None);
    }
}
