//! Documents say what the code says: metrics, causes of dead letters. What the protocol says is in
//! `protocol.rs`.

use domain::Cause;
use telemetry::metric::{Counter, Gauge, Histogram};
use tidy::tables::Table;
use tidy::{Finding, Tree, documents, report};

fn tree() -> Tree {
    Tree::here().expect("tidy runs in a git work tree")
}

#[track_caller]
fn none(findings: &[Finding]) {
    assert!(findings.is_empty(), "{}", report(findings));
}

/// Documents that are made from code are written anew when this is set.
fn update() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

fn metric_row(name: &str, kind: &str, label: Option<&str>, help: &str) -> String {
    let label = label.map_or_else(String::new, |label| format!("`{label}`"));
    format!("| `{name}` | {kind} | {label} | {help} |\n")
}

#[test]
fn every_metric_is_in_the_table_of_metrics() {
    let mut table = "| metric | kind | label | meaning |\n|---|---|---|---|\n".to_owned();
    for it in Counter::ALL {
        table += &metric_row(it.name(), "counter", it.label(), it.help());
    }
    for it in Gauge::ALL {
        table += &metric_row(it.name(), "gauge", it.label(), it.help());
    }
    for it in Histogram::ALL {
        table += &metric_row(it.name(), "histogram", it.label(), it.help());
    }
    none(&documents::generated(&tree(), "docs/METRICS.md", "metrics", &table, update()).expect("docs/METRICS.md"));
}

#[test]
fn every_cause_of_dead_letters_is_told_with_its_kind_and_what_to_do() {
    let path = "docs/OPERATIONS.md";
    let text = tree().text(path).expect("docs/OPERATIONS.md");
    let table = Table::find(path, &text, "Dead letters", "Cause").unwrap_or_else(|finding| panic!("{finding}"));
    let mut findings = table.same_keys(&Cause::ALL.iter().map(|cause| cause.as_str().to_owned()).collect());
    for cause in Cause::ALL {
        findings.extend(table.same_cell(cause.as_str(), "Kind", cause.kind().as_str()));
        findings.extend(table.same_cell(cause.as_str(), "What to do", cause.remedy()));
    }
    none(&findings);
}

#[test]
fn every_cause_of_dead_letters_raises_one_alert() {
    let text = tree().text("docs/OPERATIONS.md").expect("docs/OPERATIONS.md");
    let groups: Vec<&str> = text.split("cause=~\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for cause in Cause::ALL {
        let alerts = groups.iter().filter(|group| group.split('|').any(|it| it == cause.as_str())).count();
        assert_eq!(alerts, 1, "{cause} in the alerts of docs/OPERATIONS.md");
    }
}
