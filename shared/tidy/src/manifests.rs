//! Members' manifests: versions and lints stand once, in the root; nothing is declared in vain.

use std::collections::HashSet;

use crate::{Finding, Source, Tree};

const ROOT: &str = "Cargo.toml";

/// Declared for what it switches on in others, not to be named in the source.
const FOR_THEIR_FEATURES: [&str; 1] = ["rustls"];

/// A dependency as a member declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Declared {
    line: usize,
    name: String,
    value: String,
}

fn member_manifests(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.paths().filter(|path| path.ends_with("/Cargo.toml"))
}

/// The dependencies of a manifest that writes each on one line, as all of ours do.
fn declared(text: &str) -> Vec<Declared> {
    let (mut inside, mut found) = (false, Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            let name = key.split('.').next().unwrap_or(key).trim().to_owned();
            let value =
                if key.trim().ends_with(".workspace") { "workspace".to_owned() } else { value.trim().to_owned() };
            found.push(Declared { line: index + 1, name, value });
        }
    }
    found
}

/// Dependencies that name a version or a place of their own; members without the workspace's lints.
pub fn own_versions(tree: &Tree) -> Vec<Finding> {
    member_manifests(tree).flat_map(|path| check_manifest(path, &tree.text(path).unwrap_or_default())).collect()
}

fn check_manifest(path: &str, text: &str) -> Vec<Finding> {
    let own = |it: &Declared| {
        let apart = ["version", "path", "git"].iter().any(|key| it.value.contains(&format!("{key} =")));
        apart || !it.value.contains("workspace")
    };
    let mut findings: Vec<Finding> = declared(text)
        .iter()
        .filter(|it| own(it))
        .map(|it| Finding::at(path, it.line, format!("{}: say `{}.workspace = true`", it.name, it.name)))
        .collect();
    if !text.contains("[lints]\nworkspace = true") {
        findings.push(Finding::of(path, "say `[lints] workspace = true`"));
    }
    findings
}

/// Dependencies that no source of their crate names, and those of the root that no member declares.
pub fn unused(tree: &Tree, sources: &[Source]) -> Vec<Finding> {
    let members: Vec<(&str, String)> =
        member_manifests(tree).map(|path| (path, tree.text(path).unwrap_or_default())).collect();
    let needed = members.iter().flat_map(|(path, text)| check_needed(path, text, sources));
    let texts: Vec<&str> = members.iter().map(|(_, text)| text.as_str()).collect();
    needed.chain(check_root(&tree.text(ROOT).unwrap_or_default(), &texts)).collect()
}

/// Our own crates stand in the root whether another one needs them or not.
fn check_root(root: &str, members: &[&str]) -> Vec<Finding> {
    let wanted: HashSet<String> = members.iter().flat_map(|text| declared(text)).map(|it| it.name).collect();
    let in_vain = |it: &Declared| !it.value.contains("path =") && !wanted.contains(&it.name);
    let found = declared(root).into_iter().filter(in_vain);
    found.map(|it| Finding::at(ROOT, it.line, format!("no member declares {}", it.name))).collect()
}

fn check_needed(path: &str, text: &str, sources: &[Source]) -> Vec<Finding> {
    let folder = path.trim_end_matches("Cargo.toml");
    let own: Vec<&Source> = sources.iter().filter(|source| source.path.starts_with(folder)).collect();
    let words: HashSet<&str> =
        own.iter().flat_map(|source| source.tokens.iter().map(|token| token.text.as_str())).collect();
    // A build script may write code that names what it needs.
    let named_in_written_code = |name: &str| {
        let mention = format!("{name}::");
        own.iter().any(|source| source.is_build_script() && source.text.contains(&mention))
    };
    let in_vain = |it: &Declared| {
        let name = it.name.replace('-', "_");
        let for_features = FOR_THEIR_FEATURES.contains(&it.name.as_str());
        !words.contains(name.as_str()) && !named_in_written_code(&name) && !for_features
    };
    let found = declared(text).into_iter().filter(in_vain);
    found.map(|it| Finding::at(path, it.line, format!("no source of this crate names {}", it.name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[package]\nversion.workspace = true\n[lints]\nworkspace = true\n";

    #[test]
    fn versions_of_ones_own_are_found() {
        let good =
            format!("{HEAD}[dependencies]\ntokio.workspace = true\nredis = {{ workspace = true, optional = true }}\n");
        assert_eq!(check_manifest("a/Cargo.toml", &good), []);
        for bad in ["tokio = \"1\"", "tokio = { version = \"1\" }", "store = { path = \"../store\" }"] {
            let text = format!("{HEAD}[dev-dependencies]\n{bad}\n");
            assert_eq!(check_manifest("a/Cargo.toml", &text).len(), 1, "{bad}");
        }
        assert_eq!(check_manifest("a/Cargo.toml", "[package]\n").len(), 1);
    }

    #[test]
    fn what_the_root_offers_in_vain_is_found() {
        let root = "[workspace.dependencies]\nours = { path = \"x\" }\ntokio = \"1\"\nmoka = \"0.12\"\n";
        let member = format!("{HEAD}[dependencies]\ntokio.workspace = true\n");
        let found = check_root(root, &[member.as_str()]);
        assert_eq!(found.iter().map(|it| it.line).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn dependencies_in_vain_are_found() {
        let text = format!(
            "{HEAD}[dependencies]\ntokio.workspace = true\nserde-json.workspace = true\nprost.workspace = true\n"
        );
        let source = |path: &str, text: &str| Source::parse(path, text).expect("parses");
        let sources = [
            source("a/src/x.rs", "use tokio::net; // serde_json"),
            source("a/build.rs", "fn main() { write(\"prost::Message\") }"),
            source("b/src/x.rs", "use serde_json::json;"),
        ];
        let found = check_needed("a/Cargo.toml", &text, &sources);
        assert_eq!(found.iter().map(|it| it.line).collect::<Vec<_>>(), [7]);
    }
}
