//! What may not stand in the code, or only in one crate.

use crate::{Finding, Source};

/// Something that only its home crate may do.
struct Reserved {
    /// The crates' folders.
    homes: &'static [&'static str],
    /// The last two parts of a path, tokens separated by blanks.
    paths: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
}

/// Crates that only tests use may do everything.
const DEV: [&str; 2] = ["shared/testkit/", "shared/tidy/"];

const RESERVED: [Reserved; 3] = [
    Reserved {
        homes: &["shared/runtime/"],
        paths: &[
            "tokio : : spawn",
            "task : : spawn",
            "task : : spawn_blocking",
            "task : : spawn_local",
            "tokio : : task : : spawn_blocking",
            "thread : : spawn",
        ],
        instead: "only `runtime` spawns: use `runtime::Tasks` or `runtime::tasks::blocking`",
    },
    Reserved {
        homes: &["shared/config/"],
        paths: &[
            "env : : var",
            "env : : var_os",
            "env : : vars",
            "env : : vars_os",
            "env : : set_var",
            "env : : remove_var",
            "env : : temp_dir",
            "env : : home_dir",
        ],
        instead: "only `config` reads the environment: make it a setting",
    },
    Reserved {
        homes: &["shared/runtime/"],
        paths: &["SystemTime : : now", "Utc : : now", "Local : : now"],
        instead: "only `runtime` reads the clock: take a `runtime::Clock` or a `Timestamp`",
    },
];

/// Calls that only one crate may make, made elsewhere (tests, build scripts and dev crates aside).
pub fn reserved_calls(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in &RESERVED {
        let bound = |source: &&Source| {
            !source.is_build_script() && !DEV.iter().chain(rule.homes).any(|home| source.path.starts_with(home))
        };
        for source in sources.iter().filter(bound) {
            for line in rule.paths.iter().flat_map(|path| calls(source, path)) {
                findings.push(Finding::at(&source.path, line, rule.instead));
            }
        }
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings.dedup();
    findings
}

/// Where a path is written out, or brought in by a `use`, outside tests.
fn calls<'a>(source: &'a Source, path: &'a str) -> impl Iterator<Item = usize> + 'a {
    let written = path.replace(" : : ", "::");
    let ending = format!("::{written}");
    let imported = move |used: &str| used == written || used.ends_with(&ending);
    let uses = source.uses.iter().filter(move |(used, _)| imported(used)).map(|(_, line)| *line);
    source.find(path).chain(uses).filter(|line| !source.is_test(*line))
}

/// Files that do not open with `//!`.
pub fn missing_heads(sources: &[Source]) -> Vec<Finding> {
    let opens = |source: &Source| source.text.trim_start().starts_with("//! ");
    let what = "open it with `//!`: what it is for, what it must not know, its one invariant";
    sources.iter().filter(|source| !opens(source)).map(|source| Finding::at(&source.path, 1, what)).collect()
}

/// `#[allow]` and `#[expect]` that do not say why; `#[ignore]`, which hides a test.
pub fn bad_attributes(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (line, words) in source.attributes() {
            if has_lint_exception(&words) && !words.contains("reason = ") {
                findings.push(Finding::at(
                    &source.path,
                    line,
                    "say `reason = \"…\"`, or better, mend what the lint saw",
                ));
            }
            if words.split(' ').next() == Some("ignore") {
                findings.push(Finding::at(&source.path, line, "no test is ignored: mend it or take it away"));
            }
        }
    }
    findings
}

fn has_lint_exception(words: &str) -> bool {
    let first = words.split(' ').next().unwrap_or_default();
    let named = |word: &str| words.contains(&format!(", {word} ("));
    matches!(first, "allow" | "expect") || (first == "cfg_attr" && (named("allow") || named("expect")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> [Source; 1] {
        [Source::parse(path, text).expect("parses")]
    }

    #[test]
    fn reserved_calls_are_found_outside_their_home() {
        for text in [
            "fn f() { tokio::spawn(g()); }",
            "fn f() { select! { _ = x => { tokio::task::spawn_blocking(h) } } }",
            "use tokio::{net, spawn};",
            "fn f() { std::env::var(\"X\"); }",
            "fn f() { let now = chrono::Utc::now(); }",
        ] {
            assert_eq!(reserved_calls(&source("shared/store/src/x.rs", text)).len(), 1, "{text}");
        }
    }

    #[test]
    fn reserved_calls_pass_at_home_and_in_tests() {
        let spawn = "fn f() { tokio::spawn(g()); }";
        let in_test = "#[cfg(test)]\nmod tests { fn f() { std::env::var(\"X\"); } }";
        assert_eq!(reserved_calls(&source("shared/runtime/src/tasks.rs", spawn)), []);
        assert_eq!(reserved_calls(&source("shared/testkit/src/x.rs", spawn)), []);
        assert_eq!(reserved_calls(&source("services/api/tests/x.rs", spawn)), []);
        assert_eq!(reserved_calls(&source("services/api/src/x.rs", in_test)), []);
        assert_eq!(reserved_calls(&source("services/api/src/x.rs", "fn f() { env!(\"X\"); tasks.spawn(x) }")), []);
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(missing_heads(&source("a/src/x.rs", "//! Head.\nfn f() {}")), []);
        assert_eq!(missing_heads(&source("a/src/x.rs", "// Note.\nfn f() {}")).len(), 1);
    }

    #[test]
    fn exceptions_need_a_reason_and_tests_may_not_be_ignored() {
        for bad in [
            "#[allow(dead_code)] fn f() {}",
            "#![expect(dead_code)]",
            "#[cfg_attr(test, allow(dead_code))] fn f() {}",
            "#[ignore] fn f() {}",
            "#[ignore = \"slow\"] fn f() {}",
        ] {
            assert_eq!(bad_attributes(&source("a/src/x.rs", bad)).len(), 1, "{bad}");
        }
        let good = "#[allow(dead_code, reason = \"generated\")] fn f() { x.expect(\"set above\") }";
        assert_eq!(bad_attributes(&source("a/src/x.rs", good)), []);
    }
}
