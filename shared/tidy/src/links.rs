//! Links between our documents lead somewhere.

use crate::tree::extension;
use crate::{Finding, Tree};

/// A link in a Markdown text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    line: usize,
    target: String,
}

/// Relative links to files that do not exist, or to headings that their file does not have.
pub fn broken(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in tree.with_extension(&["md"]) {
        for link in links(&tree.text(path).unwrap_or_default()) {
            if let Some(what) = check(tree, path, &link.target) {
                findings.push(Finding::at(path, link.line, what));
            }
        }
    }
    findings
}

fn check(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let external = |scheme: &&str| target.starts_with(*scheme);
    if ["http:", "https:", "mailto:"].iter().any(external) {
        return None;
    }
    let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
    let path = if file.is_empty() { from.to_owned() } else { resolve(from, file) };
    if !tree.exists(&path) {
        return Some(format!("{target}: there is no such file"));
    }
    let heading = heading.filter(|_| extension(&path) == Some("md"))?;
    let known = headings(&tree.text(&path).unwrap_or_default());
    (!known.iter().any(|it| it == heading)).then(|| format!("{target}: {path} has no such heading"))
}

/// The path that `relative` means when it stands in the file `from`.
fn resolve(from: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if relative.starts_with('/') {
        parts.clear();
    }
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// All inline links and reference definitions outside code.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, words) in prose(text) {
        for (start, _) in words.match_indices("](") {
            if let Some(end) = words[start..].find(')') {
                let target = words[start + 2..start + end].split(' ').next().unwrap_or_default();
                found.push(Link { line, target: target.to_owned() });
            }
        }
        let definition = words.split_once("]: ").filter(|(name, _)| name.starts_with('[') && !name.starts_with("[^"));
        if let Some((_, target)) = definition {
            found.push(Link { line, target: target.split(' ').next().unwrap_or_default().to_owned() });
        }
    }
    found
}

/// The lines outside fenced code, without what stands in back-ticks.
fn prose(text: &str) -> Vec<(usize, String)> {
    let (mut fenced, mut lines) = (false, Vec::new());
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let words: String = line.split('`').step_by(2).collect();
            lines.push((index + 1, words));
        }
    }
    lines
}

/// The anchors of a document's headings, as GitHub makes them.
fn headings(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') {
            found.push(anchor(title.trim()));
        }
    }
    found
}

fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_code_are_none() {
        let text = "[a](b.md) `[c](d)`\n```\n[e](f)\n```\n[g]: h.md \"title\"\n";
        let targets: Vec<String> = links(text).into_iter().map(|link| link.target).collect();
        assert_eq!(targets, ["b.md", "h.md"]);
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let tree = Tree::here().expect("a git work tree");
        assert_eq!(check(&tree, "docs/X.md", "../Cargo.toml"), None);
        assert!(check(&tree, "docs/X.md", "../no-such-file.md").is_some());
        assert_eq!(check(&tree, "docs/X.md", "https://example.com/none"), None);
    }

    #[test]
    fn anchors_are_those_of_github() {
        assert_eq!(anchor("1. Programs, `addresses`, settings"), "1-programs-addresses-settings");
        assert_eq!(headings("# A b\n```\n# no\n```\n## C\n"), ["a-b", "c"]);
    }
}
