//! How a program is started: its environment, its clock, and where its log goes.
//!
//! Nothing of the environment of the tests is passed on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::{Node, binary};
use crate::process::Process;

/// Ignores SIGXFSZ and then is the program: writes beyond a limit fail with EFBIG instead of killing it.
const PAST_LIMITS: &str = "trap '' XFSZ; exec \"$@\"";

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
        let mut command = self.with_environment(Command::new(binary(self.program)));
        if self.clock_ahead_s != 0 {
            command.env("LD_PRELOAD", faketime_library()).env("FAKETIME", ahead(self.clock_ahead_s));
            keep_monotonic(&mut command);
        }
        command
    }

    fn with_environment(&self, mut command: Command) -> Command {
        command.env_clear().envs(&self.env).env("PATH", "/usr/local/bin:/usr/bin:/bin").env("RUST_BACKTRACE", "1");
        command.current_dir(self.log.parent().unwrap_or(Path::new("/")));
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
        let node = Node::spawn(self, Launch::default());
        node.wait_ready().await;
        node
    }
}

/// What a harness wants to change while the program runs; decided before its start.
#[derive(Debug, Default)]
pub(super) struct Launch {
    /// The file that says how far ahead the wall clock runs; the program looks there all the time.
    pub(super) clock: Option<PathBuf>,
    /// The size of its files can be limited; its log goes through a pipe, so that it is no such file.
    pub(super) limitable: bool,
}

impl Launch {
    pub(super) fn spawn(&self, spec: &NodeSpec) -> Process {
        if self.clock.is_none() && !self.limitable {
            return spec.spawn(&[]);
        }
        let mut command = spec.with_environment(Command::new("sh"));
        command.args(["-c", PAST_LIMITS, "sh", "env"]);
        if let Some(clock) = &self.clock {
            // Only the program itself: two in a row with one process id would share its clock's state.
            command.arg(format!("LD_PRELOAD={}", faketime_library().display()));
            command.env("FAKETIME_TIMESTAMP_FILE", clock).env("FAKETIME_NO_CACHE", "1").env("NO_FAKE_STAT", "1");
            keep_monotonic(&mut command);
        }
        command.arg(binary(spec.program));
        if self.limitable {
            Process::spawn_with_piped_log(spec.program, command, &spec.log)
        } else {
            Process::spawn(spec.program, command, &spec.log)
        }
    }

    /// Moves the clock of the running program.
    pub(super) fn set_clock_ahead(&self, seconds: i64) {
        let clock = self.clock.as_ref().expect("`SystemSpec::movable_clocks` was asked for");
        // In one step: the program may look at any moment.
        let next = clock.with_extension("next");
        std::fs::write(&next, ahead(seconds)).expect("the system's folder is writable");
        std::fs::rename(&next, clock).expect("they are in one folder");
    }
}

fn keep_monotonic(command: &mut Command) {
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
}

/// As libfaketime writes an offset.
fn ahead(seconds: i64) -> String {
    format!("{seconds:+}s")
}

/// The library that shifts a process' wall clock (Debian: package `faketime`).
fn faketime_library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places
        .map(|place| place.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is installed")
}
