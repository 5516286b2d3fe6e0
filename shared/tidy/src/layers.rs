//! Who may know whom: a crate depends on lower layers only, never on a neighbour.
//!
//! The layer stands in each manifest (`[package.metadata.chat] layer = N`). The one exception is
//! `domain`: it is the vocabulary, knows nobody, and may be known by its neighbours in layer 0.
//! Crates of layer "dev" serve tests and are development dependencies only.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::Finding;

const VOCABULARY: &str = "domain";

/// Where a crate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// 0 is the ground.
    Number(u64),
    /// Only for tests.
    Dev,
}

/// A dependency of one of our crates on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// In what is shipped, or to build it.
    Shipped,
    /// In tests only.
    Tests,
}

/// One of our crates, as far as these rules go.
#[derive(Debug, Clone)]
pub struct Member {
    /// The package's name.
    pub name: String,
    /// Its manifest, relative to the root.
    pub manifest: String,
    /// What its manifest says.
    pub layer: Option<Layer>,
    /// What it depends on, among all packages.
    pub needs: Vec<(String, Need)>,
}

/// The workspace's members, as cargo sees them.
pub fn members(root: &Path) -> anyhow::Result<Vec<Member>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .context("cargo metadata")?;
    Ok(metadata.packages.iter().map(|package| member(package, root)).collect())
}

fn member(package: &Package, root: &Path) -> Member {
    let layer = match &package.metadata["chat"]["layer"] {
        value if value == "dev" => Some(Layer::Dev),
        value => value.as_u64().map(Layer::Number),
    };
    let need = |kind| if kind == DependencyKind::Development { Need::Tests } else { Need::Shipped };
    let manifest = package.manifest_path.as_std_path();
    Member {
        name: package.name.to_string(),
        manifest: manifest.strip_prefix(root).unwrap_or(manifest).to_string_lossy().replace('\\', "/"),
        layer,
        needs: package.dependencies.iter().map(|needed| (needed.name.clone(), need(needed.kind))).collect(),
    }
}

/// Dependencies that reach up or sideways, and crates without a layer.
pub fn crossings(members: &[Member]) -> Vec<Finding> {
    let layers: HashMap<&str, Option<Layer>> = members.iter().map(|it| (it.name.as_str(), it.layer)).collect();
    let mut findings = Vec::new();
    for member in members {
        let Some(own) = member.layer else {
            findings.push(Finding::of(&member.manifest, "say `[package.metadata.chat] layer = N` (or \"dev\")"));
            continue;
        };
        for (name, need) in &member.needs {
            if let Some(Some(other)) = layers.get(name.as_str())
                && !may_know(&member.name, own, name, *other, *need)
            {
                let what = format!("{} ({own:?}) may not depend on {name} ({other:?})", member.name);
                findings.push(Finding::of(&member.manifest, what));
            }
        }
    }
    findings
}

fn may_know(name: &str, own: Layer, other_name: &str, other: Layer, need: Need) -> bool {
    match (own, other) {
        _ if need == Need::Tests => true,
        (Layer::Dev, _) => true,
        (Layer::Number(_), Layer::Dev) => false,
        (Layer::Number(_), Layer::Number(_)) if name == VOCABULARY => false,
        (Layer::Number(own), Layer::Number(other)) => other < own || other_name == VOCABULARY,
    }
}

/// Crates whose folder does not bear their name. `standalone` is the one exception: its package is
/// named like the product, because that is the program's name.
pub fn misnamed(members: &[Member]) -> Vec<Finding> {
    let folder = |manifest: &str| manifest.rsplit('/').nth(1).unwrap_or_default().to_owned();
    let fits = |it: &Member| match folder(&it.manifest).as_str() {
        "standalone" => it.name == "chatchit",
        folder => it.name == folder,
    };
    let misfit = members.iter().filter(|member| !fits(member));
    misfit.map(|it| Finding::of(&it.manifest, format!("the package {} is named unlike its folder", it.name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, layer: Layer, needs: &[(&str, Need)]) -> Member {
        let needs = needs.iter().map(|(name, need)| ((*name).to_owned(), *need)).collect();
        Member { name: name.into(), manifest: format!("shared/{name}/Cargo.toml"), layer: Some(layer), needs }
    }

    #[test]
    fn a_crate_may_know_lower_layers_and_nobody_else() {
        let members = [
            member("domain", Layer::Number(0), &[]),
            member("runtime", Layer::Number(0), &[("domain", Need::Shipped)]),
            member("store", Layer::Number(2), &[("runtime", Need::Shipped), ("tokio", Need::Shipped)]),
            member("testkit", Layer::Dev, &[("store", Need::Shipped)]),
            member("api", Layer::Number(4), &[("store", Need::Shipped), ("testkit", Need::Tests)]),
        ];
        assert_eq!(crossings(&members), []);
    }

    #[test]
    fn neighbours_higher_layers_and_test_crates_are_crossings() {
        let bad = [
            member("domain", Layer::Number(0), &[("runtime", Need::Shipped)]),
            member("runtime", Layer::Number(0), &[("config", Need::Shipped)]),
            member("config", Layer::Number(0), &[("store", Need::Shipped)]),
            member("store", Layer::Number(2), &[("testkit", Need::Shipped)]),
            member("testkit", Layer::Dev, &[]),
        ];
        assert_eq!(crossings(&bad).len(), 4);
        let without = Member { layer: None, ..member("auth", Layer::Dev, &[]) };
        assert_eq!(crossings(&[without]).len(), 1);
    }

    #[test]
    fn a_crate_is_named_like_its_folder() {
        assert_eq!(misnamed(&[member("store", Layer::Number(2), &[])]), []);
        let other = Member { name: "storage".into(), ..member("store", Layer::Number(2), &[]) };
        assert_eq!(misnamed(&[other]).len(), 1);
    }
}
