//! The house rules that a program can check; each file here holds the rules of one kind.
//!
//! A rule is a function from files to [`Problem`]s, and its tests show it firing on a bad sample.

mod anchors;
mod borders;
mod circles;
mod comments;
mod duplicates;
mod layers;
mod lexer;
mod links;
mod owners;
mod shape;
mod words;

use std::fmt;

use anyhow::bail;

use crate::golden;
use crate::tree::{self, SourceFile};

/// A broken rule and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File, or crate, with a line where there is one.
    place: String,
    /// What is wrong and what is wanted.
    text: String,
}

impl Problem {
    /// A problem of a whole file or crate.
    pub(crate) fn new(place: &str, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into() }
    }

    /// A problem in the line with this index, from 0.
    fn in_line(file: &SourceFile, line_idx: usize, text: impl Into<String>) -> Self {
        Self { place: format!("{}:{}", file.path, line_idx + 1), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Checks the checkout and fails with every problem found.
pub(crate) fn run() -> anyhow::Result<()> {
    let files = tree::files(tree::root())?;
    let problems = problems(&files)?;
    if problems.is_empty() {
        println!("tidy: {} files keep the rules", files.len());
        return Ok(());
    }
    for problem in &problems {
        println!("{problem}");
    }
    bail!("tidy: problems found: {}", problems.len())
}

/// Every problem, in the order of the rules.
fn problems(files: &[SourceFile]) -> anyhow::Result<Vec<Problem>> {
    let crates = layers::workspace_crates()?;
    let mut problems = layers::check(&crates);
    problems.extend(owners::check(&crates));
    for file in files {
        problems.extend(shape::check(file));
        problems.extend(words::check(file));
        problems.extend(borders::check(file));
        problems.extend(comments::check(file));
    }
    problems.extend(duplicates::check(files));
    problems.extend(circles::check(files));
    problems.extend(links::check(files));
    problems.extend(anchors::check(files));
    problems.extend(golden::generators_missing(files));
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_keeps_the_rules() {
        let files = tree::files(tree::root()).unwrap();
        let found: Vec<String> = problems(&files).unwrap().iter().map(Problem::to_string).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn a_problem_names_the_line_from_one() {
        let problem = Problem::in_line(&SourceFile::new("a.rs", "x\ny\n"), 1, "is wrong");
        assert_eq!(problem.to_string(), "a.rs:2: is wrong");
    }
}
