//! Reads one variable after the other and keeps account of what was wrong.

use std::fs;

use secrecy::SecretString;

use crate::{Problem, Source, Variable};

/// A variable was refused; why has been noted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused;

/// What is read and the problems found so far.
pub(crate) struct Reader<'a> {
    source: &'a Source,
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Self { source, problems: source.problems.clone() }
    }

    /// Notes that something is wrong with the variable.
    pub(crate) fn refuse(&mut self, variable: &Variable, what: impl Into<String>) -> Refused {
        self.problems.push(Problem::new(variable.name, what, variable.example));
        Refused
    }

    /// The value, or the default of the table.
    pub(crate) fn value<T>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Refused> {
        match self.text(variable)? {
            Some(text) => self.parsed(variable, &text, parse),
            None => parse(variable.default.unwrap_or_default()).map_err(|_| Refused),
        }
    }

    /// The value if it is set.
    pub(crate) fn optional<T>(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Refused> {
        match self.text(variable)? {
            Some(text) => self.parsed(variable, &text, parse).map(Some),
            None => Ok(None),
        }
    }

    /// A secret, from `NAME` or from the file that `NAME_FILE` names.
    pub(crate) fn secret(
        &mut self,
        variable: &Variable,
        parse: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Option<SecretString>, Refused> {
        self.optional(variable, parse).map(|text| text.map(SecretString::from))
    }

    fn parsed<T>(
        &mut self,
        variable: &Variable,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Refused> {
        match parse(text) {
            Ok(value) => Ok(value),
            Err(what) if variable.secret => Err(self.refuse(variable, what)),
            Err(what) => {
                let shown: String = text.chars().take(60).collect();
                Err(self.refuse(variable, format!("{what}, not {shown:?}")))
            }
        }
    }

    /// The raw text if it is set.
    fn text(&mut self, variable: &Variable) -> Result<Option<String>, Refused> {
        let direct = self.source.get(variable.name);
        let file_name = variable.file_name();
        let file = file_name.as_ref().and_then(|name| Some((name, self.source.get(name)?)));
        match (direct, file) {
            (Some(_), Some((name, _))) if self.source.is_from_file(variable.name) == self.source.is_from_file(name) => {
                Err(self.refuse(variable, format!("is set and so is {name}; only one of them can be right")))
            }
            // One of the two is a default from a `.env` file: the environment wins.
            (Some(_), Some((name, path))) if self.source.is_from_file(variable.name) => self.read(variable, name, path),
            (None, Some((name, path))) => self.read(variable, name, path),
            (Some(""), _) if !variable.list => Err(self.refuse(variable, "is empty; leave it out or give it a value")),
            (Some(text), _) => Ok(Some(text.to_owned())),
            (None, None) => Ok(None),
        }
    }

    fn read(&mut self, variable: &Variable, file_variable: &str, path: &str) -> Result<Option<String>, Refused> {
        let example = format!("/run/secrets/{}", variable.name.to_ascii_lowercase());
        let what = match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => "names an empty file".to_owned(),
            Ok(text) => return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => format!("names a file that cannot be read ({})", error.kind()),
        };
        self.problems.push(Problem::new(file_variable, what, example));
        Err(Refused)
    }
}
