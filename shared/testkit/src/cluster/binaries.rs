//! Where the programs under test lie, and that they are not older than their sources.
//!
//! `cargo nextest run --workspace` builds them all. With `-p chatchit` alone the separate services
//! would be missing or old: then they are built here, once. `TEST_BINARIES` names a directory of
//! programs to be taken as they are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("target/PROFILE").to_owned()
}

/// The directory of the profile this test, or this program, was built with.
fn profile_dir() -> PathBuf {
    let executable = std::env::current_exe().expect("the system knows our executable");
    let folder = executable.parent().expect("a file is in a directory");
    // Tests lie one deeper than programs.
    let is_test = folder.file_name().is_some_and(|name| name == "deps");
    if is_test { folder.parent().expect("target/PROFILE/deps").to_owned() } else { folder.to_owned() }
}

/// The program of that name, built from the sources as they are now.
pub fn binary(name: &str) -> PathBuf {
    if let Some(directory) = std::env::var_os("TEST_BINARIES") {
        return Path::new(&directory).join(name);
    }
    let path = profile_dir().join(name);
    if is_current(&path) {
        return path;
    }
    let lock = File::create(target_dir().join("testkit-build.lock")).expect("the target directory is writable");
    lock.lock().expect("locks work here");
    if !is_current(&path) {
        build(name);
    }
    path
}

fn build(name: &str) {
    announce(name);
    let profile = profile_dir();
    let profile = profile.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let profile = if profile == "debug" { "dev" } else { profile };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", profile, "-p", name, "--bin", name]);
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "cannot build {name}, which this test runs");
}

#[allow(clippy::print_stderr, reason = "a long silence needs a word")]
fn announce(name: &str) {
    eprintln!(
        "testkit: {name} is missing or older than its sources; building it (test with --workspace to avoid this)"
    );
}

/// Compares the program with the sources that cargo listed beside it (`NAME.d`).
fn is_current(path: &Path) -> bool {
    let Some(built) = changed(path) else { return false };
    let Ok(list) = std::fs::read_to_string(path.with_extension("d")) else { return false };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().all(|source| changed(Path::new(source)).is_some_and(|at| at <= built))
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}
