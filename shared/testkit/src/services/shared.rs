//! Something fresh on the shared servers.
//!
//! `test.sh` names the servers in the environment. Without that, the first test that needs one
//! starts it in the system's temporary folder; it ends itself when no test used it for a while.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

use super::{address, run_script};
use crate::guard;
use crate::management::Management;

/// Seconds without a test after which servers that no `test.sh` started end themselves.
const IDLE_S: &str = "600";

/// The URL of the shared Postgres' own database.
pub async fn shared_postgres() -> String {
    shared("TEST_DATABASE_URL", "postgres").await
}

/// The URL of the shared RabbitMQ's default virtual host.
pub async fn shared_rabbitmq() -> String {
    shared("TEST_RABBITMQ_URL", "rabbitmq").await
}

/// The URL, with user and password, of the shared RabbitMQ's management API.
pub async fn management_url() -> String {
    shared("TEST_RABBITMQ_MANAGEMENT_URL", "rabbitmq").await
}

/// A new database on the shared Postgres: its URL. It is dropped after the test.
pub async fn fresh_postgres() -> String {
    let server = shared_postgres().await;
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    let name = format!("test_{}", Uuid::new_v4().simple());
    let mut connection = sqlx::PgConnection::connect(&server).await.expect("the shared Postgres answers");
    let statement = format!("create database {name}");
    connection.execute(sqlx::AssertSqlSafe(statement)).await.expect("may create databases");
    connection.close().await.expect("closes");
    let url = format!("{base}/{name}");
    guard::database(&url);
    url
}

/// A new virtual host on the shared RabbitMQ: its URL. It is deleted after the test.
pub async fn fresh_rabbitmq() -> String {
    let (server, management) = (shared_rabbitmq().await, management_url().await);
    let (base, _) = server.rsplit_once('/').expect("a URL with a virtual host");
    let name = format!("test-{}", Uuid::new_v4().simple());
    Management::new(&management, &name).create_vhost().await;
    guard::vhost(&management, &name);
    format!("{base}/{name}")
}

#[allow(clippy::zombie_processes, reason = "the reaper serves later tests and outlives this process")]
async fn shared(variable: &str, service: &str) -> String {
    if let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) {
        return url;
    }
    let folder = own_folder();
    let lines = run_script(&["up", service], &folder).await;
    let mut reaper = Command::new(guard::script());
    reaper.arg("reap").arg(&folder).arg(IDLE_S);
    reaper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    reaper.spawn().expect("the script was there a moment ago");
    address(&lines, variable)
}

/// One folder per target directory, where also the account that Postgres runs under can reach it.
fn own_folder() -> PathBuf {
    let mut hash = DefaultHasher::new();
    super::super::cluster::target_dir().hash(&mut hash);
    std::env::temp_dir().join(format!("chatchit-services-{:016x}", hash.finish()))
}
