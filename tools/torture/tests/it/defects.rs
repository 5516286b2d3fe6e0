//! Programs that were built with deliberate defects: each of them must be noticed, and nothing where none is
//! switched on.
//!
//! Only in long runs (`./test.sh --full`): all programs are built a second time, beside the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::cluster::target_dir;
use testkit::folder::Folder;

/// Builds all programs with the feature and returns where they lie.
fn defective_programs() -> PathBuf {
    let target = target_dir().join("defects");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--workspace", "--bins", "--features", "config/defects"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .status();
    assert!(status.expect("cargo can be started").success());
    target.join("debug")
}

/// Runs the torture; each violation as its promise and what was seen.
fn broken(programs: &Path, defect: Option<&str>) -> Vec<(String, String)> {
    let folder = Folder::new();
    let json = folder.path().join("report.json");
    let mut torture = Command::new(programs.join("torture"));
    torture.env("TEST_BINARIES", programs).args(["--minutes", "1", "--no-quiet", "--seed", "1"]);
    torture.args(defect.map(|defect| ["--defect", defect]).into_iter().flatten());
    let status = torture.arg("--json").arg(&json).status().expect("it starts");
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let violations = report["violations"].as_array().expect("a list");
    assert_eq!(status.code(), Some(i32::from(!violations.is_empty())));
    violations.iter().map(|it| (text(&it["promise"]), text(&it["what"]))).collect()
}

#[test]
fn deliberate_defects_are_noticed_and_nothing_without_them() {
    let programs = defective_programs();
    assert_eq!(broken(&programs, None), []);
    for (defect, promise, words) in [
        ("AckBeforeConfirm", "a", "stored false, refused None, 0 dead letters"),
        ("NoUniqueKey", "b", "is stored twice"),
        ("PublishBeforeCommit", "d", "came twice"),
        ("IgnoreGaps", "d", "was next: left out"),
    ] {
        let broken = broken(&programs, Some(defect));
        let is_it = |it: &(String, String)| it.0 == promise && it.1.contains(words);
        assert!(broken.iter().any(is_it), "{defect}: {:?}", broken.iter().take(20).collect::<Vec<_>>());
    }
}
