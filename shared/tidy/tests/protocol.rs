//! `docs/PROTOCOL.md` and `docs/asyncapi.json` say what the code says, no more and no less: every
//! event with its fields, ack and path, every code, every limit with its default.

use std::collections::{BTreeMap, BTreeSet};

use config::variable;
use protocol::catalogue::{self, Payload};
use protocol::{CloseCode, Code};
use tidy::tables::{Name, Table, code_words, names};
use tidy::{Finding, Tree, constants, report};

const PROTOCOL: &str = "docs/PROTOCOL.md";
const MIGRATION: &str = "docs/MIGRATION.md";
const ASYNCAPI: &str = "docs/asyncapi.json";

/// Settings that bound what a client may do, beside those named `LIMIT_…`.
const BOUNDS: [&str; 6] =
    ["BEACON_EVERY", "JWT_ACCESS_EXPIRED", "JWT_REFRESH_EXPIRED", "PRESENCE_GRACE", "PRESENCE_IDLE", "ROOM_LOG_KEPT"];

fn tree() -> Tree {
    Tree::here().expect("tidy runs in a git work tree")
}

fn text(path: &str) -> String {
    tree().text(path).unwrap_or_else(|| panic!("{path} is missing"))
}

#[track_caller]
fn table(heading: &str, first: &str) -> Table {
    Table::find(PROTOCOL, &text(PROTOCOL), heading, first).unwrap_or_else(|finding| panic!("{finding}"))
}

#[track_caller]
fn none(findings: &[Finding]) {
    assert!(findings.is_empty(), "{}", report(findings));
}

/// Every shape by its name.
fn shapes() -> BTreeMap<String, Payload> {
    let commands = catalogue::client_events().into_iter().map(|event| event.data);
    let events = catalogue::server_events().into_iter().map(|event| event.data);
    let all = commands.chain(events).chain(catalogue::acks()).chain(catalogue::parts());
    all.map(|payload| (payload.name.clone(), payload)).collect()
}

/// The fields of a shape and of the shapes inside it.
fn fields_within(payload: &Payload, shapes: &BTreeMap<String, Payload>, found: &mut BTreeSet<String>) {
    let new = payload.fields().into_iter().filter(|field| found.insert(field.clone())).count();
    let schema = payload.schema.to_string();
    let inner = schema.split("#/components/schemas/").skip(1).filter_map(|rest| shapes.get(rest.split('"').next()?));
    if new > 0 {
        inner.for_each(|payload| fields_within(payload, shapes, found));
    }
}

/// What a row of a table says about the fields of a shape, against what they are. Fields that need
/// not be in the row must be in code somewhere in the document.
fn compare_fields(told: &[Name], payload: &Payload, always: &[String], whole: &BTreeSet<String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    fields_within(payload, &shapes(), &mut known);
    let mut wrong = Vec::new();
    for name in told {
        if !known.contains(&name.name) {
            wrong.push(format!("{} has no field {:?}", payload.name, name.name));
        } else if name.optional && always.contains(&name.name) {
            wrong.push(format!("{:?} is not optional", name.name));
        }
    }
    for field in payload.fields() {
        let in_row = told.iter().any(|name| name.name == field);
        let may_be_elsewhere = told.is_empty() || !always.contains(&field);
        let is_told = in_row || (may_be_elsewhere && whole.contains(&field));
        if !is_told {
            wrong.push(format!("the field {field:?} is not told"));
        }
    }
    wrong
}

#[test]
fn every_command_is_in_the_protocol_with_its_fields_ack_and_path() {
    let (table, whole, shapes) = (table("Client to server", "Event"), code_words(&text(PROTOCOL)), shapes());
    let events = catalogue::client_events();
    let mut findings = table.same_keys(&events.iter().map(|event| event.name.to_owned()).collect());
    for event in &events {
        let Some(row) = table.row(event.name) else { continue };
        let required: Vec<String> = event.required.iter().map(|field| (*field).to_owned()).collect();
        let ack = &shapes[event.ack];
        let data = compare_fields(&names(table.cell(row, "Data")), &event.data, &required, &whole);
        let acked = compare_fields(&names(table.cell(row, "Ack")), ack, &ack.always, &whole);
        findings
            .extend(data.into_iter().chain(acked).map(|what| table.finding(row, format!("{}: {what}", event.name))));
        findings.extend(table.same_cell(event.name, "Path", &event.path.to_string()));
    }
    none(&findings);
}

#[test]
fn every_event_for_clients_is_in_the_protocol_with_its_fields() {
    let (table, whole) = (table("Server to client", "Event"), code_words(&text(PROTOCOL)));
    let events = catalogue::server_events();
    let mut findings = table.same_keys(&events.iter().map(|event| event.name.to_owned()).collect());
    for event in &events {
        let Some(row) = table.row(event.name) else { continue };
        let wrong = compare_fields(&names(table.cell(row, "Data")), &event.data, &event.data.always, &whole);
        findings.extend(wrong.into_iter().map(|what| table.finding(row, format!("{}: {what}", event.name))));
    }
    none(&findings);
}

#[test]
fn every_refusal_code_is_in_the_protocol_with_its_http_status() {
    let table = table("Refusals", "Code");
    let mut findings = table.same_keys(&Code::ALL.iter().map(ToString::to_string).collect());
    for code in Code::ALL {
        let Some(row) = table.row(code.as_str()) else { continue };
        let first = table.cell(row, "REST").split(',').next().unwrap_or_default();
        if first != code.http_status().to_string() {
            findings.push(table.finding(row, format!("{code} is {} by REST, not {first}", code.http_status())));
        }
    }
    none(&findings);
}

#[test]
fn every_close_code_is_in_the_protocol_with_its_reason() {
    let table = table("Close codes", "Code");
    let number = |code: &CloseCode| code.number().to_string();
    let mut findings = table.same_keys(&CloseCode::ALL.iter().map(number).collect());
    let reason = |code: &CloseCode| table.same_cell(&number(code), "Reason", &format!("`{}`", code.reason()));
    findings.extend(CloseCode::ALL.iter().filter_map(reason));
    none(&findings);
}

#[test]
fn every_limit_of_the_protocol_is_in_its_table_with_its_value() {
    let table = table("Limits", "Limit");
    let limits = constants::constants(&text("shared/domain/src/limits.rs"));
    let declared = text("shared/domain/src/limits.rs").lines().filter(|line| line.starts_with("pub const ")).count();
    assert_eq!(limits.len(), declared, "a limit is written so that tidy cannot compute it: {limits:?}");
    let mut findings = table.same_keys(&limits.iter().map(|(name, _)| name.clone()).collect());
    findings.extend(limits.iter().filter_map(|(name, value)| table.same_cell(name, "Value", &value.to_string())));
    none(&findings);
}

#[test]
fn every_limit_that_an_operator_sets_is_in_its_table_with_its_default() {
    let table = table("Limits", "Variable");
    let bounds = |name: &str| name.starts_with("LIMIT_") || BOUNDS.contains(&name) || table.row(name).is_some();
    let known: Vec<_> = variable::ALL.iter().filter(|variable| bounds(variable.name)).collect();
    let mut findings = table.same_keys(&known.iter().map(|variable| variable.name.to_owned()).collect());
    for variable in known {
        let default = variable.default.map_or_else(|| "–".to_owned(), |default| format!("`{default}`"));
        findings.extend(table.same_cell(variable.name, "Default", &default));
        findings.extend(table.same_cell(variable.name, "Zero means", variable.zero.unwrap_or("–")));
    }
    none(&findings);
}

#[test]
fn every_time_that_a_client_meets_is_the_one_in_the_code() {
    let (tree, table) = (tree(), table("Limits", "Time"));
    let sources = tree.with_extension(&["rs"]).filter(|path| !path.contains("/tests/"));
    let all: Vec<_> = sources.flat_map(|path| constants::constants(&tree.text(path).unwrap_or_default())).collect();
    let mut findings = Vec::new();
    for row in table.rows() {
        let values: Vec<_> =
            all.iter().filter(|(name, _)| name == row.key()).map(|(_, value)| value.to_string()).collect();
        match values.as_slice() {
            [value] => findings.extend(table.same_cell(row.key(), "Value", value)),
            _ => findings.push(table.finding(row, format!("{} constants are called {}", values.len(), row.key()))),
        }
    }
    assert!(table.rows().len() > 5, "the table of times is empty");
    none(&findings);
}

#[test]
fn the_asyncapi_document_is_the_one_that_the_code_makes() {
    let (made, path) = (protocol::asyncapi::text(), tree().root().join(ASYNCAPI));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).expect("the document can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "{ASYNCAPI} is out of date: run `UPDATE_DOCS=1 cargo nextest run -p tidy`");
}

/// True for a name that only an event of ours can have: `message.send`, not `typing` or `chat.events`.
fn is_event_name(word: &str) -> bool {
    const FIRST: [&str; 11] = [
        "auth",
        "session",
        "server",
        "message",
        "room",
        "rooms",
        "presence",
        "call",
        "friend",
        "story",
        "notification",
    ];
    let parts: Vec<&str> = word.split('.').collect();
    let is_word = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphabetic());
    parts.len() == 2 && FIRST.contains(&parts[0]) && parts.iter().all(is_word)
}

#[test]
fn the_way_over_calls_planned_what_is_not_there_and_nothing_else() {
    let commands = catalogue::client_events().into_iter().map(|event| event.name);
    let there: BTreeSet<&str> =
        commands.chain(catalogue::server_events().into_iter().map(|event| event.name)).collect();
    let (mut findings, mut seen) = (Vec::new(), 0);
    for (index, line) in text(MIGRATION).lines().enumerate() {
        let pieces: Vec<&str> = line.split('`').collect();
        for (at, word) in pieces.iter().enumerate().filter(|(at, word)| at % 2 == 1 && is_event_name(word)) {
            let planned = pieces.get(at + 1).is_some_and(|after| after.starts_with(" (planned)"));
            let what = match (there.contains(word), planned) {
                (true, true) => "is there: take \"(planned)\" away and map its fields",
                (false, false) => "is not there: say \"(planned)\" after it",
                _ => {
                    seen += 1;
                    continue;
                }
            };
            findings.push(Finding::at(MIGRATION, index + 1, format!("`{word}` {what}")));
        }
    }
    assert!(seen > 50, "{MIGRATION} names too few events: {seen}");
    none(&findings);
}
