//! The proxies of one program: one in front of every service it uses, one in front of itself.
//!
//! The invariant: with them, no byte between the program and a service or a client goes another way;
//! only `/readyz` and `/metrics` are asked directly.

use std::collections::BTreeMap;
use std::fmt;

use crate::proxy::{Proxy, target_of};

/// Who is on the other side of a program's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The database.
    Postgres,
    /// The cache, leases and fan-out.
    Redis,
    /// The queues.
    RabbitMq,
    /// Clients: here the program is the server.
    Clients,
}

impl Service {
    /// The services behind an address in the environment, and the variable's name.
    const NAMED: [(Self, &'static str); 3] =
        [(Self::Postgres, "DATABASE_URL"), (Self::Redis, "REDIS_URL"), (Self::RabbitMq, "RABBITMQ_URL")];
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
            Self::Clients => "clients",
        })
    }
}

/// The proxies of one program; none in a system without them.
#[derive(Debug, Default)]
pub(super) struct Links {
    proxies: BTreeMap<Service, Proxy>,
}

impl Links {
    /// Puts proxies in front of the services that `env` names, and has `env` name the proxies instead.
    pub(super) async fn put(program: &str, env: &mut BTreeMap<String, String>) -> Self {
        let mut proxies = BTreeMap::new();
        for (service, variable) in Service::NAMED {
            if let Some(url) = env.get_mut(variable) {
                let proxy = Proxy::before(url).await;
                *url = proxy.in_front_of(url);
                proxies.insert(service, proxy);
            }
        }
        if program != "processor" {
            let own = Proxy::start(&format!("127.0.0.1:{}", env["PORT"])).await;
            proxies.insert(Service::Clients, own);
        }
        Self { proxies }
    }

    pub(super) fn get(&self, service: Service) -> Option<&Proxy> {
        self.proxies.get(&service)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Service, &Proxy)> {
        self.proxies.iter().map(|(service, proxy)| (*service, proxy))
    }

    /// The value of an environment variable with the proxy in between, which then leads to that value.
    pub(super) fn through(&self, variable: &str, value: &str) -> String {
        let named = Service::NAMED.iter().find(|(_, name)| *name == variable);
        match named.and_then(|(service, _)| self.get(*service)) {
            Some(proxy) => {
                proxy.retarget(&target_of(value));
                proxy.in_front_of(value)
            }
            None => value.to_owned(),
        }
    }
}
