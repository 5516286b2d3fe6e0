//! The guard: a process that outlives the test's process for a moment and cleans up after it.
//!
//! It holds the other end of a pipe. When the test's process ends, by whatever means, the pipe
//! closes and the guard ends what was registered and not forgotten. It knows only ids and folders.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::LazyLock;

use parking_lot::Mutex;

#[allow(clippy::zombie_processes, reason = "it ends after this process")]
static GUARD: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut guard = Command::new(script())
        .arg("guard")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("scripts/services.sh is executable and bash is installed");
    Mutex::new(guard.stdin.take().expect("standard input was asked for"))
});

/// The project's script that starts and ends services.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services.sh")
}

fn tell(line: &str) {
    writeln!(GUARD.lock(), "{line}").expect("the guard lives as long as this process");
}

/// Has the process killed, with all its children, after this one has gone.
pub fn child(pid: u32) {
    tell(&format!("child {pid}"));
}

/// Has the folder removed, and the services in its `services` ended, after this process has gone.
pub fn folder(path: &Path) {
    tell(&format!("folder {}", path.display()));
}

/// Has the database dropped after this process has gone.
pub fn database(url: &str) {
    tell(&format!("database {url}"));
}

/// Has the virtual host deleted after this process has gone.
pub fn vhost(management_url: &str, name: &str) {
    tell(&format!("vhost {management_url} {name}"));
}

/// The process has ended, or the folder is to stay.
pub fn forget(what: &str) {
    tell(&format!("forget {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_ended_already_does_not_end_the_guard() {
        let mut gone = Command::new("true").spawn().expect("a process");
        gone.wait().expect("it ends");
        let mut guard = Command::new(script()).arg("guard").stdin(Stdio::piped()).spawn().expect("bash is installed");
        let mut lines = guard.stdin.take().expect("standard input was asked for");
        writeln!(lines, "child {0}\nforget {0}", gone.id()).expect("it reads");
        drop(lines);
        assert!(guard.wait().expect("it ends").success());
    }
}
