//! The files of the repository: what git tracks, and what it would if it were added.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::Source;

/// A work tree. Paths are relative to its root, with forward slashes.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    paths: Vec<String>,
}

impl Tree {
    /// The tree that this crate lies in.
    pub fn here() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self::open(&root.canonicalize().context("the repository's root")?)
    }

    /// The tree at `root`.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("tidy asks git for the list of files")?;
        ensure!(listing.status.success(), "git: {}", String::from_utf8_lossy(&listing.stderr));
        let mut paths: Vec<String> = String::from_utf8(listing.stdout)?
            .split('\0')
            .filter(|path| !path.is_empty() && root.join(path).is_file())
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        Ok(Self { root: root.to_owned(), paths })
    }

    /// The root's absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// The paths that end in one of these extensions (without the dot).
    pub fn with_extension<'a>(&'a self, extensions: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.paths().filter(move |path| extension(path).is_some_and(|found| extensions.contains(&found)))
    }

    /// True when that file or folder exists, tracked or not.
    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A file's text; `None` when it is missing or not UTF-8.
    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// All Rust files, parsed; files that are test modules of others are marked as such.
    pub fn sources(&self) -> anyhow::Result<Vec<Source>> {
        let mut sources = Vec::new();
        for path in self.with_extension(&["rs"]) {
            let text = self.text(path).with_context(|| format!("{path} is not UTF-8"))?;
            sources.push(Source::parse(path, &text)?);
        }
        Source::mark_test_modules(&mut sources);
        Ok(sources)
    }
}

/// What stands after the last dot of a path's last part.
pub fn extension(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    name.rsplit_once('.').map(|(_, extension)| extension)
}

/// A path's last part without its extension.
pub fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_holds_this_file_and_no_build_output() {
        let tree = Tree::here().expect("a git work tree");
        assert!(tree.paths().any(|path| path == "shared/tidy/src/tree.rs"));
        assert!(!tree.paths().any(|path| path.starts_with("target/")));
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!((extension("a.b/c.test.js"), stem("a.b/c.test.js")), (Some("js"), "c"));
        assert_eq!((extension("a.b/c"), stem("a.b/c")), (None, "c"));
    }
}
