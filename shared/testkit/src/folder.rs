//! A temporary folder of a test, for data and logs.
//!
//! The invariant: it is gone after a test that passed, and stays after one that failed.

mod small_disk;

pub use small_disk::{SmallDisk, may_mount, small_disk};

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::guard;

/// A folder that other accounts can pass through (a database server runs under its own).
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new, empty folder.
    pub fn new() -> Self {
        let path = tempfile::Builder::new()
            .prefix("chatchit-test-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("the system's folder for temporary files is writable")
            .keep();
        guard::folder(&path);
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let is_empty = std::fs::remove_dir(&self.path).is_ok();
        if std::thread::panicking() && !is_empty {
            guard::forget(&self.path.display().to_string());
        } else {
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}
