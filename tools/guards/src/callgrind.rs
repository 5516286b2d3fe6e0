//! One path under callgrind: what it costs each time.
//!
//! Knows callgrind's options and its report, not what is normal. The invariant: only what happens inside
//! `counted` is in the figures, so neither start-up, other threads nor the machine's load are.

use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::Path;
use crate::work::Allocated;

/// So often a path is gone.
const TIMES: u64 = 64;
const VALGRIND: &str = "valgrind";
/// The one function that works on each 64 bytes that are hashed.
const HASHING: &str = "sha2::sha256::";

/// What one time costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions of the program itself. Without those of the C library, which chooses its code by the
    /// processor; what it does most, allocating, is counted below.
    pub instructions: u64,
    /// Instructions that hash. Processors have instructions of their own for it, which valgrind has not:
    /// among the others they would hide everything.
    pub hashing: u64,
    /// Allocations, growing ones included.
    pub allocations: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A path that is being counted.
pub struct Counting {
    path: Path,
    own: String,
    child: Child,
    folder: TempDir,
}

/// True when callgrind is there.
pub fn is_there() -> bool {
    let version = Command::new(VALGRIND).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

fn report(folder: &TempDir) -> PathBuf {
    folder.path().join("callgrind.out")
}

fn words(folder: &TempDir) -> PathBuf {
    folder.path().join("words")
}

impl Counting {
    /// Starts `program run PATH TIMES` under callgrind.
    pub fn start(program: &FilePath, path: Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let words = std::fs::File::create(words(&folder))?;
        let child = Command::new(VALGRIND)
            .args(["--tool=callgrind", "--toggle-collect=*guards*work*counted*"])
            .args(["--compress-strings=no", "--compress-pos=no"])
            .arg(format!("--callgrind-out-file={}", report(&folder).display()))
            .arg(program)
            .args(["run", &path.name(), &TIMES.to_string()])
            .stdout(Stdio::piped())
            .stderr(words)
            .spawn()
            .context("cannot start valgrind")?;
        Ok(Self { path, own: program.display().to_string(), child, folder })
    }

    /// Waits for its end.
    pub fn finish(self) -> anyhow::Result<(Path, Cost)> {
        let name = self.path.name();
        let output = self.child.wait_with_output()?;
        if !output.status.success() {
            let words = std::fs::read_to_string(words(&self.folder)).unwrap_or_default();
            bail!("{name} ended with {}:\n{words}", output.status);
        }
        let cost = || {
            let report = std::fs::read_to_string(report(&self.folder))?;
            read(&report, &self.own, serde_json::from_slice(&output.stdout)?)
        };
        Ok((self.path, cost().with_context(|| format!("callgrind on {name}"))?))
    }
}

fn each(all: u64) -> u64 {
    (all + TIMES / 2) / TIMES
}

/// Adds up what a report of callgrind without compressed names says of the object `own`; instructions
/// of all times, while `allocated` is of one.
fn read(report: &str, own: &str, allocated: Allocated) -> anyhow::Result<Cost> {
    let (mut instructions, mut hashing) = (0, 0);
    let (mut is_own, mut is_hashing, mut is_call) = (false, false, false);
    for line in report.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = object == own;
        } else if let Some(function) = line.strip_prefix("fn=") {
            is_hashing = function.contains(HASHING);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            // After a call it is what the called function costs, which has lines of its own.
            if !std::mem::take(&mut is_call) && is_own {
                let cost = line.split(' ').nth(1).context("a line without a cost")?.parse::<u64>()?;
                *if is_hashing { &mut hashing } else { &mut instructions } += cost;
            }
        }
    }
    ensure!(instructions > 0, "nothing was counted: the function that is counted was not found by its name");
    let Allocated { count: allocations, bytes } = allocated;
    Ok(Cost { instructions: each(instructions), hashing: each(hashing), allocations, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 2101

ob=/target/guards
fl=???
fn=guards::work::counted
0 640
cob=libc.so.6
cfi=malloc.c
cfn=malloc
calls=3 0
0 60000
cfn=sha2::sha256::soft::compress
calls=9 0
0 50000

fn=sha2::sha256::soft::compress
0 6400

ob=libc.so.6
fl=malloc.c
fn=malloc
17 60000
19 1

totals: 117041
";

    #[test]
    fn instructions_are_those_of_the_program_and_of_one_time() {
        let allocated = Allocated { count: 25, bytes: 100 };
        let cost = Cost { instructions: 10, hashing: 100, allocations: 25, bytes: 100 };
        assert_eq!(read(REPORT, "/target/guards", allocated).expect("read"), cost);
    }

    #[test]
    fn a_report_without_anything_counted_is_an_error() {
        let read = |report, own| read(report, own, Allocated::default());
        assert!(read("events: Ir\n", "a").is_err());
        assert!(read(REPORT, "/target/other").is_err());
        assert!(read("ob=a\nfn=f\n7\n", "a").is_err());
    }
}
