//! One program as a child process: its environment, its port, its log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use parking_lot::RwLock;

use super::binary;
use crate::process::Process;
use crate::{PATIENCE, until};

/// How a program is started.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// The program: `chatchit`, `gateway`, `processor` or `api`.
    pub program: &'static str,
    /// Its environment; nothing else is passed on.
    pub env: BTreeMap<String, String>,
    /// How far ahead its wall clock runs, in seconds.
    pub clock_ahead_s: i64,
    /// Where its log goes.
    pub log: PathBuf,
}

impl NodeSpec {
    fn command(&self) -> Command {
        let mut command = Command::new(binary(self.program));
        command.env_clear().envs(&self.env).env("PATH", "/usr/local/bin:/usr/bin:/bin").env("RUST_BACKTRACE", "1");
        command.current_dir(self.log.parent().unwrap_or(Path::new("/")));
        if self.clock_ahead_s != 0 {
            command.env("LD_PRELOAD", faketime_library());
            command.env("FAKETIME", format!("{:+}s", self.clock_ahead_s));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// Starts it without waiting for anything: for starts that must fail.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        let mut command = self.command();
        command.args(arguments);
        Process::spawn(self.program, command, &self.log)
    }

    /// Runs it to its end, giving standard input `input`; returns status, standard output, standard error.
    pub async fn run(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut command = tokio::process::Command::from(self.command());
        let output = command.args(arguments).output().await.expect("the program can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stdout), text(&output.stderr))
    }

    /// Starts it and waits until it says it is ready.
    pub async fn start(self) -> Node {
        let node =
            Node { process: RwLock::new(self.spawn(&[])), spec: RwLock::new(self), http: reqwest::Client::new() };
        node.wait_ready().await;
        node
    }
}

/// The library that shifts a process' wall clock (Debian: package `faketime`).
fn faketime_library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places
        .map(|place| place.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is installed")
}

/// A running program.
#[derive(Debug)]
pub struct Node {
    process: RwLock<Process>,
    spec: RwLock<NodeSpec>,
    http: reqwest::Client,
}

impl Node {
    /// The port it serves on, the same after a restart.
    pub fn port(&self) -> u16 {
        self.spec.read().env["PORT"].parse().expect("the port is a number")
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.read().id()
    }

    /// The status of `/readyz`; `None` when it does not answer.
    pub async fn readyz(&self) -> Option<u16> {
        let request = self.http.get(format!("{}/readyz", self.url())).timeout(Duration::from_secs(3));
        request.send().await.ok().map(|answer| answer.status().as_u16())
    }

    /// Waits until `/readyz` says 200; panics with the log when the program ends instead.
    pub async fn wait_ready(&self) {
        until(2 * PATIENCE, || async {
            let ended = self.process.read().ended();
            assert!(ended.is_none(), "{} ended at start: {ended:?}\n{}", self.spec.read().program, self.log_tail());
            self.readyz().await == Some(200)
        })
        .await;
    }

    /// The value of a metric summed over the series whose labels hold all of `labels` (`class="high"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let request = self.http.get(format!("{}/metrics", self.url()));
        let Ok(answer) = request.send().await else { return 0.0 };
        let text = answer.text().await.unwrap_or_default();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines()
            .filter(of_name)
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// SIGKILL.
    pub async fn kill9(&self) {
        self.signal_and_wait(rustix::process::Signal::KILL, Duration::from_secs(20)).await;
    }

    /// SIGTERM; returns how it ended within `limit`.
    pub async fn terminate(&self, limit: Duration) -> ExitStatus {
        self.signal_and_wait(rustix::process::Signal::TERM, limit).await
    }

    async fn signal_and_wait(&self, signal: rustix::process::Signal, limit: Duration) -> ExitStatus {
        self.process.read().signal(signal);
        until(limit, || async { self.process.read().ended().is_some() }).await;
        self.process.read().ended().expect("it has ended")
    }

    /// Stops it for a while with SIGSTOP.
    pub fn pause(&self) {
        self.process.read().pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.read().resume();
    }

    /// Starts it again after it ended, with the same environment, port and folder.
    pub async fn start_again(&self) {
        self.spawn_again();
        self.wait_ready().await;
    }

    /// Like `start_again`, without waiting until it is ready.
    pub fn spawn_again(&self) {
        let process = self.spec.read().spawn(&[]);
        *self.process.write() = process;
    }

    /// Changes an environment variable of its next start.
    pub fn set_env(&self, name: &str, value: &str) {
        self.spec.write().env.insert(name.to_owned(), value.to_owned());
    }

    /// All it has logged, over all its starts.
    pub fn log(&self) -> String {
        self.process.read().log()
    }

    /// The log's end.
    pub fn log_tail(&self) -> String {
        self.process.read().log_tail()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.read().ended()
    }
}
