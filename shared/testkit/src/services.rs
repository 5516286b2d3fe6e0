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

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;

use parking_lot::Mutex;
use uuid::Uuid;

/// From which a test takes ports: below those from which the system serves outgoing connections, so that a server can
/// leave one and come back, and above those of the services script.
const PORTS: std::ops::Range<u16> = 28_000..32_000;

/// A port on loopback on which nobody listens now. It is this process's until it ends: of tests that run at the same
/// time no two are given the same.
pub fn free_port() -> u16 {
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join(format!("chatchit-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).expect("a folder for reservations");
    let (lock, port) = (0..1000)
        .map(|_| PORTS.start + (Uuid::new_v4().as_u128() % PORTS.len() as u128) as u16)
        .find_map(|port| {
            let lock = File::create(folder.join(port.to_string())).expect("a file for a reservation");
            let is_free = lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
            is_free.then_some((lock, port))
        })
        .expect("one of a thousand ports is free");
    RESERVED.lock().push(lock);
    port
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
