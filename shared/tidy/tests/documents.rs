//! Documents say what the code says: metrics, codes, events, limits.

use protocol::{CloseCode, Code};
use telemetry::metric::{Counter, Gauge, Histogram};
use tidy::{Finding, Tree, documents, report};

const PROTOCOL: &str = "docs/PROTOCOL.md";

fn tree() -> Tree {
    Tree::here().expect("tidy runs in a git work tree")
}

fn text(path: &str) -> String {
    tree().text(path).unwrap_or_else(|| panic!("{path} is missing"))
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
fn every_code_is_in_the_protocol_with_its_http_status() {
    let rows: Vec<_> = Code::ALL.iter().map(|code| vec![format!("`{code}`"), code.http_status().to_string()]).collect();
    none(&documents::missing_rows(PROTOCOL, &text(PROTOCOL), &rows));
}

#[test]
fn every_close_code_is_in_the_protocol_with_its_reason() {
    let row = |code: &CloseCode| vec![code.number().to_string(), format!("`{}`", code.reason())];
    none(&documents::missing_rows(PROTOCOL, &text(PROTOCOL), &CloseCode::ALL.iter().map(row).collect::<Vec<_>>()));
}

/// The names in the `name` function of a file that maps variants to public names.
fn public_names(path: &str) -> Vec<Vec<String>> {
    let source = text(path);
    let arms = source.lines().filter_map(|line| line.split_once("(_) => \"")?.1.strip_suffix("\","));
    let names: Vec<_> = arms.map(|name| vec![format!("`{name}`")]).collect();
    assert!(names.len() > 10, "{path} no longer maps variants to names in the way this test reads");
    names
}

#[test]
fn every_event_of_either_direction_is_in_the_protocol() {
    for path in ["shared/protocol/src/command.rs", "shared/protocol/src/event.rs"] {
        none(&documents::missing_rows(PROTOCOL, &text(PROTOCOL), &public_names(path)));
    }
}

/// A limit as the protocol's table writes it: its name in the code, its value.
fn limits() -> Vec<(&'static str, usize)> {
    use domain::limits::*;
    vec![
        ("CONTENT_BYTES", CONTENT_BYTES),
        ("CLIENT_MSG_ID_CHARS", CLIENT_MSG_ID_CHARS),
        ("DEVICE_ID_CHARS", DEVICE_ID_CHARS),
        ("FRAME_ID_CHARS", FRAME_ID_CHARS),
        ("FRAME_BYTES", FRAME_BYTES),
        ("FRAME_NESTING", FRAME_NESTING),
        ("ATTACHMENTS", ATTACHMENTS),
        ("ATTACHMENT_URL_CHARS", ATTACHMENT_URL_CHARS),
        ("ATTACHMENT_NAME_CHARS", ATTACHMENT_NAME_CHARS),
        ("MENTIONS", MENTIONS),
        ("EMOJI_BYTES", EMOJI_BYTES),
        ("ANSWER_BYTES", ANSWER_BYTES),
        ("PAGE_BYTES", PAGE_BYTES),
        ("REACTIONS_PER_USER", REACTIONS_PER_USER),
        ("TITLE_CHARS", TITLE_CHARS),
        ("MEMBERS_PER_REQUEST", MEMBERS_PER_REQUEST),
        ("SYNC_ROOMS", SYNC_ROOMS),
        ("SYNC_ITEMS_PER_ROOM", SYNC_ITEMS_PER_ROOM),
        ("SYNC_ITEMS", SYNC_ITEMS),
        ("PRESENCE_USERS", PRESENCE_USERS),
        ("PAGE_ITEMS", PAGE_ITEMS),
        ("PAGE_ITEMS_DEFAULT", PAGE_ITEMS_DEFAULT),
        ("COMMANDS_IN_FLIGHT", COMMANDS_IN_FLIGHT),
        ("EMAIL_CHARS", EMAIL_CHARS),
        ("NAME_CHARS", NAME_CHARS),
        ("PASSWORD_CHARS", *PASSWORD_CHARS.end()),
        ("PASSWORD_BYTES", PASSWORD_BYTES),
    ]
}

#[test]
fn every_limit_is_in_the_protocol_with_its_value() {
    let limits = limits();
    for line in text("shared/domain/src/limits.rs").lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let name = line.split(':').next().unwrap_or_default();
        assert!(limits.iter().any(|(known, _)| *known == name), "add {name} to this test and to {PROTOCOL}");
    }
    let rows: Vec<_> = limits.iter().map(|(name, value)| vec![format!("`{name}`"), value.to_string()]).collect();
    none(&documents::missing_rows(PROTOCOL, &text(PROTOCOL), &rows));
}
