//! Programs that were built with deliberate defects: each of them must be noticed.
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

/// Runs the torture with a defect; which promises were broken.
fn broken_by(programs: &Path, defect: &str, seed: u64) -> Vec<String> {
    let folder = Folder::new();
    let json = folder.path().join("report.json");
    let mut torture = Command::new(programs.join("torture"));
    torture.env("TEST_BINARIES", programs).args(["--minutes", "1", "--no-quiet", "--defect", defect]);
    let status = torture.args(["--seed", &seed.to_string()]).arg("--json").arg(&json).status().expect("it starts");
    assert_eq!(status.code(), Some(1), "{defect} was not noticed");
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let violations = report["violations"].as_array().expect("a list");
    violations.iter().filter_map(|violation| violation["promise"].as_str().map(str::to_owned)).collect()
}

#[test]
fn deliberate_defects_are_noticed() {
    if std::env::var_os("TEST_FULL").is_none() {
        return;
    }
    let programs = defective_programs();
    let expected = [("AckBeforeConfirm", "a"), ("NoUniqueKey", "b"), ("PublishBeforeCommit", "d"), ("IgnoreGaps", "d")];
    for (defect, promise) in expected {
        let broken = broken_by(&programs, defect, 1);
        assert!(broken.iter().any(|it| it == promise), "{defect} broke {broken:?}, and not {promise}");
    }
}
