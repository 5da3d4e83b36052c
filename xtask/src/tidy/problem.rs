//! The finding of a rule.

use std::fmt;

use crate::tree::SourceFile;

/// A broken rule and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File, or crate, with a line where there is one.
    pub(super) place: String,
    /// The problem, and what to do instead.
    text: String,
}

impl Problem {
    /// A problem of a whole file or crate.
    pub(crate) fn new(place: &str, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into() }
    }

    /// A problem in the line with this index, from 0.
    pub(super) fn in_line(file: &SourceFile, line_idx: usize, text: impl Into<String>) -> Self {
        Self { place: format!("{}:{}", file.path, line_idx + 1), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_line_from_one() {
        let problem = Problem::in_line(&SourceFile::new("a.rs", "x\ny\n"), 1, "is wrong");
        assert_eq!(problem.to_string(), "a.rs:2: is wrong");
    }
}
