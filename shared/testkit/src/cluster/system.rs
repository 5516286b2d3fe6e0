//! A whole system: the all-in-one, or gateways, processors and an api over real services.
//!
//! Tests that hold for both ask for gateways by number and do not care which of the two it is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Node, NodeSpec};
use crate::client::{Person, Rest, token};
use crate::folder::Folder;
use crate::management::Management;
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

/// What a system is made of.
#[derive(Debug, Default)]
pub struct SystemSpec {
    env: BTreeMap<String, String>,
    gateways: usize,
    processors: usize,
    clocks_ahead_s: Vec<i64>,
    distributed: bool,
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

    /// Starts it and waits until everything is ready.
    pub async fn start(self) -> System {
        let mut system = System::prepare(&self).await;
        system.env.extend(self.env);
        if self.distributed {
            // The first one migrates while nobody else waits for it.
            system.nodes.push(system.spec("api", 0).start().await);
        }
        let gateway = if self.distributed { "gateway" } else { "chatchit" };
        let ahead = |number: usize| self.clocks_ahead_s.get(number).copied().unwrap_or(0);
        let gateways = (0..self.gateways).map(|number| system.spec(gateway, ahead(number)).start());
        let gateways = futures_util::future::join_all(gateways).await;
        let processors = (0..self.processors).map(|_| system.spec("processor", 0).start());
        let processors = futures_util::future::join_all(processors).await;
        system.gateways = gateways;
        system.processors = processors;
        system
    }
}

/// A running system. Dropping it ends its processes, then its services.
#[derive(Debug)]
pub struct System {
    nodes: Vec<Node>,
    gateways: Vec<Node>,
    /// The processors; none in the all-in-one. Tests may add and remove some.
    pub processors: Vec<Node>,
    env: BTreeMap<String, String>,
    management: Option<Management>,
    redis: Option<RedisServer>,
    started: std::sync::atomic::AtomicUsize,
    folder: Folder,
}

impl System {
    async fn prepare(spec: &SystemSpec) -> Self {
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
        let started = std::sync::atomic::AtomicUsize::new(0);
        Self { nodes: vec![], gateways: vec![], processors: vec![], env, management, redis, started, folder }
    }

    /// How this system would start one more of a program: a port and a log of its own.
    pub fn spec(&self, program: &'static str, clock_ahead_s: i64) -> NodeSpec {
        let number = self.started.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut env = self.env.clone();
        env.insert("PORT".to_owned(), free_port().to_string());
        let log = self.folder.path().join(format!("{number:02}-{program}.log"));
        NodeSpec { program, env, clock_ahead_s, log }
    }

    /// Starts one more processor.
    pub async fn add_processor(&mut self) {
        let processor = self.spec("processor", 0).start().await;
        self.processors.push(processor);
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
        token::mint(SECRET, user, 3600)
    }

    /// Waits until all programs say they are ready.
    pub async fn wait_ready(&self) {
        for node in self.all() {
            node.wait_ready().await;
        }
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
            let panic = log.lines().find(|line| line.contains("panicked at") || line.contains("a task panicked"));
            assert!(panic.is_none(), "{panic:?} in\n{}", node.log_tail());
        }
    }
}
