//! A child process of a test, with its output in a file.
//!
//! The invariant: it is dead when its `Process` is dropped, and when the test's process is gone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::{guard, until};

/// How many of the log's last lines a failed test shows.
const SHOWN_LINES: usize = 60;

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
    /// Writes down what comes through the pipe, when the log goes through one.
    scribe: Mutex<Option<Child>>,
}

impl Process {
    /// Starts `command`; what it writes is appended to `log`.
    pub fn spawn(name: &str, command: Command, log: &Path) -> Self {
        let out = appending(log);
        let err = out.try_clone().expect("descriptors are left");
        Self::start(name, command, log, [out.into(), err.into()], None)
    }

    /// The same through a pipe, so that limits for its files do not hold for its log.
    pub fn spawn_with_piped_log(name: &str, command: Command, log: &Path) -> Self {
        let (reader, out) = std::io::pipe().expect("descriptors are left");
        let err = out.try_clone().expect("descriptors are left");
        let mut cat = Command::new("cat");
        let scribe = cat.stdin(reader).stdout(appending(log)).stderr(Stdio::null()).spawn().expect("there is a `cat`");
        Self::start(name, command, log, [out.into(), err.into()], Some(scribe))
    }

    fn start(name: &str, mut command: Command, log: &Path, output: [Stdio; 2], scribe: Option<Child>) -> Self {
        let [out, err] = output;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({}): {error}", command.get_program().display()));
        guard::child(child.id());
        let (child, scribe) = (Mutex::new(child), Mutex::new(scribe));
        Self { name: name.to_owned(), log: log.to_owned(), child, scribe }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.lock().id()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        let ended = self.child.lock().try_wait().expect("it is our child")?;
        self.finish_log();
        Some(ended)
    }

    /// After its end: waits until its last words are written down.
    fn finish_log(&self) {
        if let Some(mut scribe) = self.scribe.lock().take() {
            drop(scribe.wait());
        }
    }

    /// Limits the size of every file it writes to, in bytes; `None`: no limit. A program that does not
    /// ignore SIGXFSZ is ended by its next write beyond.
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        // The hard limit, which it has from us, stays: so the soft one can be lifted again.
        let maximum = getrlimit(Resource::Fsize).maximum;
        if self.ended().is_none() {
            // It may end at this very moment; then there is nobody left to limit.
            let _ = prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum });
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.id() as i32).expect("process ids are not zero")
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            // It may end at this very moment; then there is nobody left to signal.
            let _ = kill_process(self.pid(), signal);
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
        let id = child.id();
        guard::forget(&id.to_string());
        // What libfaketime leaves behind when it is killed; whoever gets this id next would stumble over it.
        for leftover in ["faketime_shm_", "sem.faketime_sem_"] {
            drop(std::fs::remove_file(format!("/dev/shm/{leftover}{id}")));
        }
        self.finish_log();
        if std::thread::panicking() {
            show(&self.name, &self.log, &self.log_tail());
        }
    }
}

fn appending(log: &Path) -> File {
    File::options().create(true).append(true).open(log).expect("the log's folder exists")
}

#[allow(clippy::print_stderr, reason = "a failed test shows what its processes said")]
fn show(name: &str, log: &Path, tail: &str) {
    eprintln!("---- {name}, the end of {}:\n{tail}\n----", log.display());
}
