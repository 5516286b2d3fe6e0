//! A disk of its own for a test, so small that it can be filled.
//!
//! Its content goes with it. The invariant: it is unmounted when it is dropped, and when the test's process is gone.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Folder;

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
