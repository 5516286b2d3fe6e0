//! Words that may not stand in any file.

use crate::tree::extension;
use crate::{Finding, Tree};

/// Each in two halves, so that this list does not find itself.
const NOTES: [(&str, &str); 4] = [("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("Not written", " yet")];

/// Absolute places of one machine, and papers that readers of this repository do not have.
const PLACES: [(&str, &str); 7] = [
    ("/", "work"),
    ("/", "farm"),
    ("/tmp/", "plan"),
    ("../shared/", "design"),
    ("../shared/", "bench"),
    ("../shared/", "tools"),
    ("../shared/", "hooks"),
];

/// Files written by tools or by others.
fn is_foreign(path: &str) -> bool {
    matches!(path, "Cargo.lock" | "LICENSE")
        || path.ends_with("package-lock.json")
        || extension(path).is_some_and(|found| matches!(found, "png" | "ico" | "woff2" | "snap"))
}

/// Forgotten notes to oneself, and places that exist on one machine only.
pub fn forbidden(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in tree.paths().filter(|path| !is_foreign(path)) {
        for (index, line) in tree.text(path).unwrap_or_default().lines().enumerate() {
            if let Some(what) = check_line(line) {
                findings.push(Finding::at(path, index + 1, what));
            }
        }
    }
    findings
}

fn check_line(line: &str) -> Option<String> {
    let note = NOTES.iter().map(|(a, b)| format!("{a}{b}")).find(|word| stands_alone(line, word));
    if let Some(word) = note {
        return Some(format!("{word:?}: do it, or open an issue"));
    }
    let place = PLACES.iter().map(|(a, b)| format!("{a}{b}")).find(|word| stands_alone(line, word))?;
    Some(format!("{place:?} exists on one machine only"))
}

/// True when `word` is in `line` with no letter, digit or path part touching it on either side.
fn stands_alone(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let in_path = word.starts_with('/') && before.is_some_and(|c| matches!(c, '.' | '}' | ')' | '*'));
        !in_path && !before.is_some_and(part) && !after.is_some_and(|c| part(c) || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_places_are_found() {
        let note = ["// TO", "DO: later"].concat();
        let place = ["cd /wo", "rk/main"].concat();
        for bad in [note.as_str(), place.as_str(), &["see ../shared", "/design/x.md"].concat()] {
            assert!(check_line(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn words_that_only_look_alike_pass() {
        let queue = ["./wo", "rk/queue"].concat();
        for good in ["/workspace/x", &queue, "a/work", "METHOD", "../shared/store/src/lib.rs", "/work-queue"] {
            assert_eq!(check_line(good), None, "{good}");
        }
    }
}
