//! The rules of the code base, run over the code base.

use tidy::{Finding, Source, Tree, layers, links, manifests, names, report, rules, sizes, words};

fn tree() -> Tree {
    Tree::here().expect("tidy runs in a git work tree")
}

fn sources() -> Vec<Source> {
    tree().sources().expect("every Rust file parses")
}

#[track_caller]
fn none(findings: &[Finding]) {
    assert!(findings.is_empty(), "{}", report(findings));
}

#[test]
fn crates_know_only_lower_layers() {
    let members = layers::members(tree().root()).expect("cargo metadata");
    assert!(members.len() > 10, "the workspace was not found");
    none(&layers::crossings(&members));
}

#[test]
fn crates_are_named_like_their_folders() {
    none(&layers::misnamed(&layers::members(tree().root()).expect("cargo metadata")));
}

#[test]
fn versions_and_lints_stand_once_in_the_root() {
    none(&manifests::own_versions(&tree()));
}

#[test]
fn no_dependency_is_declared_in_vain() {
    none(&manifests::unused(&tree(), &sources()));
}

#[test]
fn files_are_short() {
    none(&sizes::long_files(&tree()));
}

#[test]
fn functions_are_short() {
    none(&sizes::long_functions(&sources()));
}

#[test]
fn every_module_says_what_it_is_for() {
    none(&rules::missing_heads(&sources()));
}

#[test]
fn tasks_environment_and_clock_have_one_home_each() {
    none(&rules::reserved_calls(&sources()));
}

#[test]
fn lint_exceptions_say_why_and_no_test_is_ignored() {
    none(&rules::bad_attributes(&sources()));
}

#[test]
fn one_thing_has_one_noun() {
    none(&names::other_nouns(&tree()));
}

#[test]
fn no_notes_to_oneself_and_no_places_of_one_machine() {
    none(&words::forbidden(&tree()));
}

#[test]
fn links_between_documents_lead_somewhere() {
    none(&links::broken(&tree()));
}
