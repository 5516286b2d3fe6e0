//! Tables in documents, compared row by row with what the code knows.
//!
//! Knows Markdown and no feature. The invariant: a row too many is found as surely as a row too few.

use std::collections::BTreeSet;

use crate::Finding;

/// The table of a document that stands below a heading.
#[derive(Debug)]
pub struct Table {
    path: String,
    line: usize,
    header: Vec<String>,
    rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug)]
pub struct Row {
    /// Its line in the document.
    pub line: usize,
    /// Its cells, trimmed.
    pub cells: Vec<String>,
}

impl Row {
    /// What the row is about: the first words in back-ticks of its first cell, else the cell.
    pub fn key(&self) -> &str {
        let first = self.cells.first().map_or("", String::as_str);
        first.split('`').nth(1).unwrap_or(first)
    }
}

impl Table {
    /// The first table below `heading` (its text without `#`) whose header begins with `first`.
    pub fn find(path: &str, text: &str, heading: &str, first: &str) -> Result<Self, Finding> {
        let lines: Vec<&str> = text.lines().collect();
        let missing = || Finding::of(path, format!("no table that begins with {first:?} below {heading:?}"));
        let title = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
        let start = lines.iter().position(title).ok_or_else(missing)?;
        let end =
            lines[start + 1..].iter().position(|line| line.starts_with('#')).map_or(lines.len(), |it| start + 1 + it);
        let is_header = |line: &&str| line.starts_with('|') && cells(line).first().is_some_and(|it| it == first);
        let header = lines[start..end].iter().position(is_header).ok_or_else(missing)? + start;
        let body = lines[header + 1..end].iter().take_while(|line| line.starts_with('|'));
        let numbered = body.enumerate().skip(1);
        let rows = numbered.map(|(index, line)| Row { line: header + 2 + index, cells: cells(line) }).collect();
        Ok(Self { path: path.to_owned(), line: header + 1, header: cells(lines[header]), rows })
    }

    /// The row about `key`.
    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.key() == key)
    }

    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A row's cell in a column; empty when there is none.
    pub fn cell<'a>(&self, row: &'a Row, column: &str) -> &'a str {
        let index = self.header.iter().position(|it| it == column);
        index.and_then(|index| row.cells.get(index)).map_or("", String::as_str)
    }

    /// Something about a row.
    pub fn finding(&self, row: &Row, what: impl Into<String>) -> Finding {
        Finding::at(&self.path, row.line, what)
    }

    /// Rows that are missing, doubled, or about nothing that the code knows.
    pub fn same_keys(&self, known: &BTreeSet<String>) -> Vec<Finding> {
        let mut findings: Vec<_> = known
            .iter()
            .filter(|key| self.row(key).is_none())
            .map(|key| Finding::at(&self.path, self.line, format!("no row for `{key}`, which is in the code")))
            .collect();
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            if !known.contains(row.key()) {
                findings.push(self.finding(row, format!("`{}` is not in the code", row.key())));
            } else if !seen.insert(row.key()) {
                findings.push(self.finding(row, format!("a second row for `{}`", row.key())));
            }
        }
        findings
    }

    /// Says when the cell of `key` in `column` is not `value`; a missing row is not told again.
    pub fn same_cell(&self, key: &str, column: &str, value: &str) -> Option<Finding> {
        let row = self.row(key)?;
        let found = self.cell(row, column);
        (found != value).then(|| self.finding(row, format!("{key}, {column}: {found:?} here, {value:?} in the code")))
    }
}

fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    let bare = line.replace("\\|", "\u{0}");
    bare.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// A name in a cell's code, and whether it is marked as optional (`name?`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: String,
    /// True for `name?`.
    pub optional: bool,
}

/// The names of fields in a cell: what stands in back-ticks before the first words that explain
/// (after `: `, `; ` or ` (`), without quoted values.
pub fn names(cell: &str) -> Vec<Name> {
    let mut found = Vec::new();
    for (index, piece) in cell.split('`').enumerate() {
        if index % 2 == 1 {
            found.extend(code_names(piece));
        } else if [": ", "; ", " ("].iter().any(|end| piece.contains(end)) {
            break;
        }
    }
    found
}

fn code_names(code: &str) -> Vec<Name> {
    let unquoted: String = code.split('"').step_by(2).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '?';
    let words = unquoted.split(|c: char| !is_part(c)).filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    words
        .filter(|word| !matches!(*word, "or" | "true" | "false"))
        .map(|word| Name { name: word.trim_end_matches('?').to_owned(), optional: word.ends_with('?') })
        .collect()
}

/// Every word of a document that stands in code, fenced or in back-ticks.
pub fn code_words(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut words = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let code = line.split('`').enumerate().filter(|(index, _)| fenced || index % 2 == 1);
        for (_, code) in code {
            words.extend(code.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# A\n| x | y |\n|---|---|\n| `one`: first | 1 |\n| two \\| more | `2` |\n\n## B\n| x | z |\n|---|---|\n";

    fn table() -> Table {
        Table::find("x.md", TEXT, "A", "x").expect("there is one")
    }

    fn keys(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_table_is_found_below_its_heading() {
        let table = table();
        assert_eq!((table.rows()[0].key(), table.rows()[0].line), ("one", 4));
        assert_eq!(table.rows()[1].key(), "two | more");
        assert_eq!(Table::find("x.md", TEXT, "B", "x").expect("empty").rows().len(), 0);
        assert!(Table::find("x.md", TEXT, "B", "y").is_err() && Table::find("x.md", TEXT, "C", "x").is_err());
    }

    #[test]
    fn rows_too_few_and_too_many_are_found() {
        assert_eq!(table().same_keys(&keys(&["one", "two | more"])), []);
        assert_eq!(table().same_keys(&keys(&["one", "two | more", "three"])).len(), 1);
        assert_eq!(table().same_keys(&keys(&["one"])).len(), 1);
        let twice = TEXT.replace("two \\| more", "`one`");
        let twice = Table::find("x.md", &twice, "A", "x").expect("there is one");
        assert_eq!(twice.same_keys(&keys(&["one"])).len(), 1);
    }

    #[test]
    fn another_value_is_found() {
        assert_eq!(table().same_cell("one", "y", "1"), None);
        assert!(table().same_cell("one", "y", "2").is_some());
        assert!(table().same_cell("one", "no such column", "1").is_some());
    }

    #[test]
    fn names_end_where_words_explain() {
        let shown = |cell: &str| {
            let each = names(cell).into_iter();
            each.map(|it| if it.optional { it.name + "?" } else { it.name }).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("`roomId`, and `seq` or `messageId`: read up to `that`"), "roomId seq messageId");
        assert_eq!(shown("`{status:\"QUEUED\", id?}`"), "status id?");
        assert_eq!(
            shown("`rooms: [{roomId, afterSeq} or {roomId, afterRev}]`"),
            "rooms roomId afterSeq roomId afterRev"
        );
        assert_eq!(shown("`by?, reason?` (`left` or `removed`)"), "by? reason?");
        assert_eq!(shown("see above"), "");
    }

    #[test]
    fn words_in_code_are_known() {
        let words = code_words("a `b c`\n```\n{\"d\":1}\n```\ne");
        assert!(words.contains("b") && words.contains("d") && !words.contains("a") && !words.contains("e"));
    }
}
