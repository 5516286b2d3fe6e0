//! What is wrong with a variable, in one line that an operator can act on.

use std::fmt;

/// Why a variable was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: String,
    /// What was wrong with it; never a secret's value.
    pub what: String,
    /// A right value.
    pub example: String,
}

impl Problem {
    /// A problem with `name`; whatever would break the line is left out.
    pub fn new(name: impl Into<String>, what: impl Into<String>, example: impl Into<String>) -> Self {
        let one_line = |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { name: name.into(), what: one_line(what.into()), example: example.into() }
    }
}

/// `PORT: must be a number from 0 to 65535, not "x"; example: PORT=8080`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; example: {}={}", self.name, self.what, self.name, self.example)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_name_reason_and_example() {
        let problem = Problem::new("PORT", "must be a number,\nnot this", "8080");
        assert_eq!(problem.to_string(), "PORT: must be a number, not this; example: PORT=8080");
    }
}
