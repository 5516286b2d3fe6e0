//! The code base tests itself: layers, sizes, module docs, names, and documents that match the code.
//!
//! Each module holds one family of rules as functions from a [`Tree`] to findings; `tests/` runs
//! them over this repository. Nothing here knows a feature or runs a service. The invariant: a rule
//! reports where it is broken and how to mend it, and has itself been seen to fail (its unit tests).

pub mod constants;
pub mod documents;
pub mod layers;
pub mod links;
pub mod manifests;
pub mod names;
pub mod rules;
pub mod sizes;
pub mod source;
pub mod tables;
pub mod tree;
pub mod words;

use std::fmt;

pub use source::Source;
pub use tree::Tree;

/// One place where a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the repository's root.
    pub path: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl Finding {
    /// A finding at a line of a file.
    pub fn at(path: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }

    /// A finding about a file as a whole.
    pub fn of(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self::at(path, 0, what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// All findings as one text, a line each; empty when there are none.
pub fn report(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |text, finding| text + "\n  " + &finding.to_string())
}
