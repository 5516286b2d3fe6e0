//! Room on the disk on which the files of the embedded engine lie.
//!
//! Knows of these files only that what is written lies in logs (`*-wal`) first and is folded into them later.
//! The invariant: a log counts as if all of it had still to be written a second time.

use std::path::Path;

/// With less than this left, logs that were folded are given back to the disk; with more they are kept, for it
/// is quicker to write over what is there.
const SHORT: u64 = 64 * 1024 * 1024;

/// What a disk has to spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What is free, bytes.
    pub free_bytes: u64,
    /// The size of the logs that lie in the folder, bytes.
    pub log_bytes: u64,
}

impl Space {
    /// On the disk on which a folder lies; `None`: the system does not say.
    pub fn of(folder: &Path) -> Option<Self> {
        Some(Self { free_bytes: free_bytes(folder)?, log_bytes: log_bytes(folder) })
    }

    /// What is left once everything is folded, at least, bytes.
    pub fn left_bytes(self) -> u64 {
        self.free_bytes.saturating_sub(self.log_bytes)
    }

    /// Whether logs are to be given back.
    pub fn is_short(self) -> bool {
        self.left_bytes() < SHORT
    }
}

/// Logs that cannot be looked at count nothing.
fn log_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let logs = files.filter(|file| file.file_name().as_encoded_bytes().ends_with(b"-wal"));
    logs.filter_map(|log| Some(log.metadata().ok()?.len())).sum()
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_much_room_there_is() {
        assert!(Space::of(&std::env::temp_dir()).is_some_and(|space| space.free_bytes > 0));
        assert_eq!(Space::of(Path::new("/there/is/no/such/folder")), None);
    }

    #[test]
    fn what_lies_in_logs_is_owed() {
        let folder = std::env::temp_dir().join(format!("disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for (name, bytes) in [("chat.db", 5_000), ("chat.db-wal", 300), ("queue.db-wal", 20), ("wal", 7_000)] {
            std::fs::write(folder.join(name), vec![0; bytes]).expect("written");
        }
        let found = Space::of(&folder).map(|space| space.log_bytes);
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(found, Some(320));
        let space = |free_bytes, log_bytes| Space { free_bytes, log_bytes };
        assert_eq!((space(100, 30).left_bytes(), space(30, 100).left_bytes()), (70, 0));
        assert!(!space(SHORT, 0).is_short() && space(SHORT, 1).is_short());
    }
}
