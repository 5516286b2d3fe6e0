//! One noun for one thing: a feature has the same file name in every crate it passes through.

use crate::tree::{extension, stem};
use crate::{Finding, Tree};

/// The nouns of the product, each with the names it might otherwise get. `docs/GLOSSARY.md` says
/// what they mean.
pub const NOUNS: [(&str, &[&str]); 12] = [
    ("message", &["messages", "msg", "msgs"]),
    ("room", &["rooms", "conversation", "conversations", "groups"]),
    ("member", &["members", "membership", "memberships", "participant", "participants"]),
    ("user", &["users", "account", "accounts"]),
    ("presence", &["presences", "status", "statuses"]),
    ("call", &["calls"]),
    ("story", &["stories"]),
    ("friend", &["friends", "friendship", "friendships"]),
    ("notification", &["notifications"]),
    ("token", &["tokens", "jwt"]),
    ("metric", &["metrics"]),
    ("lease", &["leases"]),
];

/// Source files and folders that name a thing otherwise than the rest of the code base does.
pub fn other_nouns(tree: &Tree) -> Vec<Finding> {
    let ours = |path: &&str| {
        let root = path.split('/').next().unwrap_or_default();
        let code = extension(path).is_some_and(|found| matches!(found, "rs" | "proto" | "js" | "mjs"));
        code && matches!(root, "services" | "shared" | "proto" | "clients" | "web")
    };
    tree.paths().filter(ours).filter_map(check_path).collect()
}

fn check_path(path: &str) -> Option<Finding> {
    let (folders, _) = path.rsplit_once('/')?;
    let mut names = folders.split('/').chain([stem(path)]);
    let found = names.find_map(|name| noun_for(name).map(|noun| (name, noun)))?;
    Some(Finding::of(path, format!("{:?} is called {:?} everywhere else", found.0, found.1)))
}

fn noun_for(name: &str) -> Option<&'static str> {
    NOUNS.iter().find(|(_, others)| others.contains(&name)).map(|(noun, _)| *noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_word_for_the_same_thing_is_found() {
        assert!(check_path("services/api/src/routes/conversations.rs").is_some());
        assert!(check_path("shared/store/src/messages/page.rs").is_some());
        assert!(check_path("shared/store/src/message.rs").is_none());
    }

    #[test]
    fn no_noun_is_another_ones_synonym() {
        for (noun, _) in NOUNS {
            assert_eq!(noun_for(noun), None);
        }
    }
}
