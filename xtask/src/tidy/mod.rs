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
mod messages;
mod owners;
mod plain;
mod problem;
mod shape;
mod signatures;
mod unrun;
mod words;

use anyhow::bail;

use crate::golden;
use crate::tree::{self, SourceFile};

pub(crate) use self::problem::Problem;

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
        problems.extend(signatures::check(file));
        problems.extend(words::check(file));
        problems.extend(plain::check(file));
        problems.extend(borders::check(file));
        problems.extend(comments::check(file));
    }
    problems.extend(duplicates::check(files));
    problems.extend(circles::check(files));
    problems.extend(unrun::check(files));
    problems.extend(links::check(files));
    problems.extend(anchors::check(files));
    problems.extend(messages::check(files));
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
}
