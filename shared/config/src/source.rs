//! Where values come from: the process environment, then `.env.local`, then `.env`.
//!
//! The one place that looks at the outside. The process environment always wins.

use std::collections::HashMap;
use std::path::Path;

use crate::{Problem, variable};

/// Names and values, and what went wrong while they were gathered.
#[derive(Default)]
pub struct Source {
    values: HashMap<String, Value>,
    pub(crate) problems: Vec<Problem>,
}

/// One value and whether a file of defaults gave it (there an empty value means "not set").
struct Value {
    text: String,
    from_file: bool,
}

impl Source {
    /// What this process was given; outside production also `.env.local` and `.env` of the working
    /// directory.
    pub fn environment() -> Self {
        let mut source = Self::default();
        let files = variable::ALL.iter().filter_map(|variable| variable.file_name());
        for name in variable::ALL.iter().map(|variable| variable.name.to_owned()).chain(files) {
            match std::env::var(&name) {
                Ok(text) => source.add(name, text, false),
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    source.problems.push(Problem::new(name, "is not UTF-8", "text"));
                }
            }
        }
        if source.get("APP_ENV") != Some("production") {
            source.read_file(Path::new(".env.local"));
            source.read_file(Path::new(".env"));
        }
        source
    }

    /// Exactly these, as if they were the environment.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let mut source = Self::default();
        for (name, text) in pairs {
            source.add((*name).to_owned(), (*text).to_owned(), false);
        }
        source
    }

    /// Adds what the file says and nothing else has said; a missing file says nothing.
    pub(crate) fn read_file(&mut self, path: &Path) {
        let Ok(lines) = dotenvy::from_path_iter(path) else { return };
        for line in lines {
            match line {
                Ok((name, text)) if !text.is_empty() => self.add(name, text, true),
                Ok(_) => {}
                // The error holds the line, and the line may hold a secret.
                Err(_) => {
                    let shown = path.display().to_string();
                    self.problems.push(Problem::new(shown, "has a line that is not NAME=value", "\"text\""));
                    return;
                }
            }
        }
    }

    fn add(&mut self, name: String, text: String, from_file: bool) {
        self.values.entry(name).or_insert(Value { text, from_file });
    }

    /// The value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.text.as_str())
    }

    /// True if the value came from a `.env` file.
    pub(crate) fn is_from_file(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.from_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Source {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        std::fs::write(&path, text).expect("a file");
        let mut source = Source::of(&[("PORT", "1")]);
        source.read_file(&path);
        source
    }

    #[test]
    fn the_environment_wins_over_files() {
        let source = with_file("PORT=2\nHOST='::1'\nQUEUE_SHARDS=\n");
        assert_eq!((source.get("PORT"), source.get("HOST")), (Some("1"), Some("::1")));
        assert_eq!(source.get("QUEUE_SHARDS"), None, "an empty line of a file sets nothing");
    }

    #[test]
    fn a_bad_line_is_a_problem_that_does_not_show_it() {
        let source = with_file("JWT_ACCESS_TOKEN='hush hush\n");
        let [problem] = source.problems.as_slice() else { panic!("{:?}", source.problems) };
        assert!(problem.to_string().contains(".env") && !problem.to_string().contains("hush"), "{problem}");
    }
}
