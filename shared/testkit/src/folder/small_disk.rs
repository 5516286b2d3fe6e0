//! A disk of its own for a test, so small that it can be filled.
//!
//! Its content goes with it. The invariant: it is unmounted when it is dropped, and when the test's process is gone;
//! a test for which there can be none says so.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Folder;

/// Set in a process that was given a namespace to mount in.
const OF_ITS_OWN: &str = "TESTKIT_NAMESPACE";

/// A file system of a few megabytes in memory.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    // Removed after it was unmounted.
    _folder: Folder,
}

/// A new, empty disk of so many bytes (rounded up to whole pages); `None` when this account may not
/// mount one.
pub fn small_disk(bytes: u64) -> Option<SmallDisk> {
    let folder = Folder::new();
    let path = folder.path().join("disk");
    std::fs::create_dir(&path).expect("a new folder is writable");
    // From here on it is also unmounted by the guard.
    let options = format!("size={bytes},mode=755,nosuid,nodev");
    is_done(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "chatchit-test"]).arg(&path))
        .then_some(SmallDisk { path, _folder: folder })
}

/// Whether this process may mount a small disk. When it may not, the test of that full name (as `cargo test`
/// lists it) is run by a process that may, as root of a user namespace of its own; panics when it fails
/// there, and where no such namespace is to be had, standard error says that nothing was shown.
#[must_use]
pub fn may_mount(test: &str) -> bool {
    if small_disk(4096).is_some() {
        return true;
    }
    if std::env::var_os(OF_ITS_OWN).is_some() || !is_done(unshare().arg("true")) {
        say(&format!("testkit: {test} shows nothing: this account may neither mount nor have a namespace of its own"));
        return false;
    }
    let this = std::env::current_exe().expect("the system knows our executable");
    let mut command = unshare();
    command.arg(this).args(["--exact", test, "--nocapture"]).env(OF_ITS_OWN, "yes");
    let output = command.stdin(Stdio::null()).output().expect("it was started before");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    say(&err);
    assert!(output.status.success() && out.contains(" 1 passed"), "in a namespace of its own:\n{out}");
    false
}

/// Starts what follows as root of a new user namespace, in which it may mount.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--"]);
    command
}

#[allow(clippy::print_stderr, reason = "what was not shown must not look as if it was")]
fn say(what: &str) {
    eprintln!("{what}");
}

impl SmallDisk {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills what is free with a file, but for `spare_bytes`. Returns how many bytes it took.
    pub fn fill(&self, spare_bytes: u64) -> u64 {
        let mut file = File::options().create(true).append(true).open(self.ballast()).expect("a file has a name");
        let before = file.metadata().expect("it is open").len();
        let block = [0; 4096];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("cannot fill {}: {error}", self.path.display()),
            }
        }
        let full = file.metadata().expect("it is open").len();
        let left = full.saturating_sub(spare_bytes).max(before);
        file.set_len(left).expect("a file can be shortened");
        left - before
    }

    /// Takes back what `fill` took.
    pub fn relieve(&self) {
        drop(std::fs::remove_file(self.ballast()));
    }

    fn ballast(&self) -> PathBuf {
        self.path.join(".ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that still runs there must not keep it for ever.
        is_done(Command::new("umount").arg("--lazy").arg(&self.path));
        drop(std::fs::remove_dir(&self.path));
    }
}

fn is_done(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
