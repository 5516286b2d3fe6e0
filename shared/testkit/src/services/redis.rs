//! A Redis of one's own: it starts in a tenth of a second, so every test has one.
//!
//! It keeps nothing on disk, so stopping it also shows what happens when Redis forgets everything.

use std::process::Command;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{free_port, resp};
use crate::folder::Folder;
use crate::process::Process;
use crate::{PATIENCE, until};

/// How long a server that answers at all may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A private redis-server.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    /// Of the nodes of a cluster, for one another.
    bus_port: Option<u16>,
    // Before the folder: fields drop in this order.
    process: Mutex<Option<Process>>,
    folder: Folder,
}

impl RedisServer {
    /// Starts a new, empty one.
    pub async fn start() -> Self {
        Self::start_on(None).await
    }

    /// A new, empty one that knows of no other node of its cluster yet.
    pub(super) async fn start_for_cluster() -> Self {
        Self::start_on(Some(free_port())).await
    }

    async fn start_on(bus_port: Option<u16>) -> Self {
        let server = Self { port: free_port(), bus_port, process: Mutex::new(None), folder: Folder::new() };
        server.start_again().await;
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn bus_port(&self) -> u16 {
        self.bus_port.expect("a node of a cluster")
    }

    /// Its URL, the same over its whole life.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Starts it again, empty, on the same port.
    pub async fn start_again(&self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.folder.path());
        if let Some(port) = self.bus_port {
            command.args(["--cluster-enabled", "yes", "--cluster-port", &port.to_string()]);
            // Long enough that a busy machine takes nobody for dead.
            command.args(["--cluster-node-timeout", "5000"]);
            // Tests make a node busy by DEBUG SLEEP.
            command.args(["--enable-debug-command", "local"]);
        }
        let process = Process::spawn("redis", command, &self.folder.path().join("redis.log"));
        *self.process.lock() = Some(process);
        until(PATIENCE, || self.answers()).await;
    }

    /// Stops it in good order.
    pub async fn stop(&self) {
        let process = self.process.lock().take().expect("it runs");
        process.terminate(Duration::from_secs(10)).await;
    }

    /// Kills it.
    pub async fn kill9(&self) {
        let process = self.process.lock().take().expect("it runs");
        process.kill9().await;
    }

    /// It lives, holds its connections and answers nothing.
    pub fn pause(&self) {
        self.process.lock().as_ref().expect("it runs").pause();
    }

    /// It answers again.
    pub fn resume(&self) {
        self.process.lock().as_ref().expect("it runs").resume();
    }

    /// The answer to one command, given inline (`FLUSHALL`), as the protocol's text.
    pub async fn command(&self, line: &str) -> std::io::Result<String> {
        let answer = self.exchange(format!("{line}\r\nQUIT\r\n").as_bytes()).await?;
        String::from_utf8(answer).map_err(|_| std::io::ErrorKind::InvalidData.into())
    }

    /// The values of the answer to one command (`["KEYS", "*"]`), arrays within arrays made flat, and
    /// nothing for nil. An error the server answers with is an error here.
    pub async fn query(&self, command: &[&str]) -> std::io::Result<Vec<String>> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        bytes.extend_from_slice(b"QUIT\r\n");
        resp::values(&self.exchange(&bytes).await?)
    }

    async fn exchange(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let talk = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(bytes).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(ANSWER_LIMIT, talk).await?
    }

    async fn answers(&self) -> bool {
        let ended = self.process.lock().as_ref().is_none_or(|process| process.ended().is_some());
        assert!(!ended, "redis-server ended at start: {}", self.folder.path().display());
        self.command("PING").await.is_ok_and(|answer| answer.starts_with("+PONG"))
    }
}
