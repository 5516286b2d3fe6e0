//! Tables in documents that are made from the code, or must name everything the code knows.

use anyhow::Context as _;

use crate::{Finding, Tree};

/// The part of a document between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
fn part<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (body, after) = rest.split_once(&end)?;
    Some((before, body, after))
}

/// Compares a generated part with what it should be; with `update` it is written instead.
pub fn generated(tree: &Tree, path: &str, name: &str, body: &str, update: bool) -> anyhow::Result<Vec<Finding>> {
    let text = tree.text(path).with_context(|| format!("{path} is missing"))?;
    let (before, found, after) = part(&text, name).with_context(|| format!("{path} has no part {name}"))?;
    if found == body {
        return Ok(Vec::new());
    }
    if update {
        let whole = format!("{before}<!-- {name}:begin -->\n{body}<!-- {name}:end -->{after}");
        std::fs::write(tree.root().join(path), whole)?;
        return Ok(Vec::new());
    }
    let what = format!("the part {name} is out of date: run `UPDATE_DOCS=1 cargo nextest run -p tidy`");
    Ok(vec![Finding::of(path, what)])
}

/// Rows that a document lacks. A row is there when one line of the text holds all its words, each
/// as a word of its own.
pub fn missing_rows(path: &str, text: &str, rows: &[Vec<String>]) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let there = |row: &[String]| lines.iter().any(|line| row.iter().all(|word| holds(line, word)));
    let missing = rows.iter().filter(|row| !there(row));
    missing.map(|row| Finding::of(path, format!("no line says {}", row.join(" … ")))).collect()
}

fn holds(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_between_its_marks() {
        let text = "a\n<!-- x:begin -->\nbody\n<!-- x:end -->\nb\n";
        assert_eq!(part(text, "x"), Some(("a\n", "body\n", "\nb\n")));
        assert_eq!(part(text, "y"), None);
    }

    #[test]
    fn a_row_needs_all_its_words_on_one_line() {
        let text = "| `NOT_FOUND` | 404 |\n| `CONFLICT` | 409 |\n";
        let row = |words: &[&str]| vec![words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()];
        assert_eq!(missing_rows("x.md", text, &row(&["NOT_FOUND", "404"])), []);
        for bad in [["NOT_FOUND", "409"], ["FOUND", "404"], ["NOT_FOUND", "40"]] {
            assert_eq!(missing_rows("x.md", text, &row(&bad)).len(), 1, "{bad:?}");
        }
    }
}
