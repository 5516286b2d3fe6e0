//! A child process of a test, with its output in a file.
//!
//! The invariant: it is dead when its `Process` is dropped, and when the test's process is gone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::{guard, until};

/// How many of the log's last lines a failed test shows.
const SHOWN_LINES: usize = 60;

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command`; what it writes is appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("the log's folder exists");
        let err = out.try_clone().expect("descriptors are left");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({}): {error}", command.get_program().display()));
        guard::child(child.id());
        Self { name: name.to_owned(), log: log.to_owned(), child: Mutex::new(child) }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.lock().id()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().expect("it is our child")
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_raw(self.id() as i32).expect("process ids are not zero");
            // It may end at this very moment; then there is nobody left to signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; panics when it has not by `limit`.
    pub async fn wait(&self, limit: Duration) -> ExitStatus {
        until(limit, || async { self.ended().is_some() }).await;
        guard::forget(&self.id().to_string());
        self.ended().expect("it has ended")
    }

    /// SIGKILL: no chance to tidy up.
    pub async fn kill9(&self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(20)).await;
    }

    /// SIGTERM, then waits for the orderly end.
    pub async fn terminate(&self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit).await
    }

    /// SIGSTOP: it lives and does nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// All it has written, also by the processes that were started with the same log before.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of the log, for a message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let child = self.child.get_mut();
        drop(child.wait());
        guard::forget(&child.id().to_string());
        if std::thread::panicking() {
            show(&self.name, &self.log, &self.log_tail());
        }
    }
}

#[allow(clippy::print_stderr, reason = "a failed test shows what its processes said")]
fn show(name: &str, log: &Path, tail: &str) {
    eprintln!("---- {name}, the end of {}:\n{tail}\n----", log.display());
}
