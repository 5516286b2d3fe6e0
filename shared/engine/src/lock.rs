//! One server at a time on a data folder.
//!
//! The embedded engine keeps its queue's order and its presence in memory; two servers on the same
//! files would each deliver half of everything. Commands that only write rows need no lock. The
//! system frees the lock with the process, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use config::Problem;

/// Held as long as it lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the folder, which is made if it is not there.
    pub fn take(data_dir: &Path) -> Result<Self, Problem> {
        let shown = data_dir.display();
        let refused = |what: String| Problem::new("DATA_DIR", what, "./data");
        let unusable = |error: std::io::Error| refused(format!("{shown} cannot be used ({})", error.kind()));
        make_folder(data_dir).map_err(unusable)?;
        let path = data_dir.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(refused(format!("{shown} is in use by another chatchit; stop it or name another folder")))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

/// Makes the folder for this user alone; one that exists stays as it is.
pub(crate) fn make_folder(path: &Path) -> std::io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(ErrorKind::NotADirectory.into()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_on_the_same_folder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/data");
        let first = DataLock::take(&path).expect("free");
        let problem = DataLock::take(&path).expect_err("taken");
        assert!(problem.name == "DATA_DIR" && problem.what.contains("in use"), "{problem}");
        drop(first);
        DataLock::take(&path).expect("free again");
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let problem = DataLock::take(file.path()).expect_err("a file");
        assert!(problem.what.contains("not a directory"), "{problem}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let problem = DataLock::take(Path::new("/proc/nowhere")).expect_err("not a place for files");
        assert!(problem.what.contains("/proc/nowhere"), "{problem}");
    }
}
