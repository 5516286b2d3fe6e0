//! Real services for tests: shared servers with something fresh on them, or servers of one's own.
//!
//! The invariant: no test sees another test's data.

mod cuts;
mod node;
mod redis;
mod redis_cluster;
mod resp;
mod shared;

pub use cuts::{cut_sessions, cut_transactions};
pub use node::{PrivatePostgres, PrivateRabbit};
pub use redis::RedisServer;
pub use redis_cluster::{BUSY, RedisCluster};
pub use shared::{fresh_postgres, fresh_rabbitmq, management_url, shared_postgres, shared_rabbitmq};

use std::net::TcpListener;
use std::path::Path;

use uuid::Uuid;

/// A port on loopback on which nobody listens now. It lies below the range from which the system
/// serves outgoing connections, so a server can leave it and come back.
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| 20_000 + (Uuid::new_v4().as_u128() % 12_000) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}

/// Runs the services script and returns its lines `NAME=value`.
async fn run_script(arguments: &[&str], folder: &Path) -> Vec<(String, String)> {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let output = tokio::process::Command::new(crate::guard::script())
        .arg(verb)
        .arg(folder)
        .args(rest)
        .output()
        .await
        .expect("scripts/services.sh is executable and bash is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "services.sh {arguments:?} {}: {complaint}", folder.display());
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The address of that name among the script's lines.
fn address(lines: &[(String, String)], name: &str) -> String {
    let line = lines.iter().find(|(key, _)| key == name);
    line.unwrap_or_else(|| panic!("the services script named no {name}")).1.clone()
}
