//! Counts all paths and holds them against the baseline, or writes a new one.
//!
//! The invariant: it succeeds only if every path was counted and none differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::Path;
use crate::baseline::{Baseline, Surroundings, Verdict};
use crate::callgrind::{Cost, Counting, is_there};

fn file() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json")
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}

fn surroundings() -> Surroundings {
    #[cfg(target_arch = "x86_64")]
    let processor = if is_x86_feature_detected!("avx2") { "x86_64 with avx2" } else { "x86_64" };
    #[cfg(not(target_arch = "x86_64"))]
    let processor = std::env::consts::ARCH;
    Surroundings { compiler: compiler(), processor: processor.to_owned() }
}

/// Counts these paths, as many at a time as there are processors: their load changes nothing.
fn count(paths: &[Path]) -> anyhow::Result<Baseline> {
    ensure!(is_there(), "valgrind is missing: ./test.sh --setup installs it on Debian");
    let program = std::env::current_exe().context("where this program is")?;
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counted: BTreeMap<String, Cost> = BTreeMap::new();
    for slice in paths.chunks(at_once) {
        let started: Vec<_> = slice.iter().map(|path| Counting::start(&program, *path)).collect();
        for (counting, path) in started.into_iter().zip(slice) {
            // Fifty times slower than it is meant to be, it can run into a time limit beside others: once more, alone.
            let finished = counting?.finish().or_else(|_| Counting::start(&program, *path)?.finish());
            let (path, cost) = finished?;
            counted.insert(path.name(), cost);
        }
    }
    Ok(Baseline { counted_with: surroundings(), paths: counted })
}

/// Writes what paths cost now as the baseline; those that are not counted stay as they are.
pub fn update(paths: &[Path]) -> anyhow::Result<String> {
    let mut now = count(paths)?;
    if paths.len() < Path::ALL.len() {
        let before = read()?;
        ensure!(before.counted_with == now.counted_with, "another compiler or processor: count all paths");
        now.paths = before.paths.into_iter().chain(now.paths).collect();
    }
    std::fs::write(file(), serde_json::to_string_pretty(&now)? + "\n")?;
    Ok(format!("{} was written", file().display()))
}

fn read() -> anyhow::Result<Baseline> {
    let text = std::fs::read_to_string(file()).with_context(|| file().display().to_string())?;
    serde_json::from_str(&text).with_context(|| file().display().to_string())
}

/// Says how paths compare, and whether none differs.
pub fn check(paths: &[Path]) -> anyhow::Result<(String, bool)> {
    let (before, now) = (read()?, count(paths)?);
    let compared = before.compare(&now);
    let mut text = String::new();
    for it in &compared {
        writeln!(text, "{it}")?;
    }
    if before.counted_with != now.counted_with {
        let tolerance = before.tolerance(&now.counted_with);
        let (here, there) = (&now.counted_with, &before.counted_with);
        writeln!(text, "Counted with {here:?}, the baseline with {there:?}: {tolerance} % are tolerated. Update it.")?;
    }
    let of = |verdict| compared.iter().any(|it| it.verdict == verdict);
    let is_gone = paths.len() == Path::ALL.len() && before.has_more_than(&now);
    let advice = "cargo run --release -p guards -- update";
    let is_stale = of(Verdict::Cheaper) || of(Verdict::New) || is_gone;
    if of(Verdict::Dearer) {
        writeln!(text, "A message costs more than before. Mend it, or if it is worth it: {advice}")?;
    } else if is_stale {
        writeln!(text, "The baseline does not fit any more, so it guards nothing: {advice}")?;
    }
    Ok((text, !of(Verdict::Dearer) && !is_stale))
}
