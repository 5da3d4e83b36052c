//! Comments that say what the next line says.

use std::collections::BTreeSet;

use super::Problem;
use crate::tree::SourceFile;

/// Words that carry no meaning of their own in a comment or in code, without a final s.
const STOP_WORDS: [&str; 34] = [
    "the", "an", "to", "of", "and", "or", "are", "be", "in", "for", "with", "thi", "that", "we",
    "it", "from", "on", "by", "if", "then", "into", "new", "get", "set", "let", "self", "return",
    "fn", "mut", "pub", "use", "each", "all", "our",
];

/// A longer comment has room to say more than its line.
const MAX_WORDS: usize = 8;
/// The share of a comment's words that must be in the line below.
const RESTATED: f64 = 0.75;
/// Words are compared by their first letters, so that endings do not matter.
const STEM_LETTERS: usize = 5;

/// One problem for each one-line comment whose words are those of the next line.
pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    if !file.has_extension("rs") {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text().lines().map(str::trim).collect();
    let single = |idx: usize| {
        let before = idx.checked_sub(1).is_some_and(|before| lines[before].starts_with("//"));
        is_comment(lines[idx]) && !before && !lines[idx + 1].starts_with("//")
    };
    (0..lines.len().saturating_sub(1))
        .filter(|idx| single(*idx) && restates(lines[*idx], lines[*idx + 1]))
        .map(|idx| Problem::in_line(file, idx, format!("`{}` restates the next line", lines[idx])))
        .collect()
}

fn is_comment(line: &str) -> bool {
    line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!")
}

#[expect(clippy::cast_precision_loss, reason = "counts of words")]
fn restates(comment: &str, code: &str) -> bool {
    let said = stems(comment);
    let shared = said.intersection(&stems(code)).count();
    (1..=MAX_WORDS).contains(&said.len()) && shared as f64 >= RESTATED * said.len() as f64
}

/// The stems of the words of a line; `camelCase` and `snake_case` are several words.
fn stems(line: &str) -> BTreeSet<String> {
    let mut spaced = String::new();
    let mut after_lower = false;
    for c in line.chars() {
        if c.is_uppercase() && after_lower {
            spaced.push(' ');
        }
        after_lower = c.is_lowercase();
        spaced.extend(c.to_lowercase());
    }
    spaced
        .split(|c: char| !c.is_ascii_lowercase())
        .map(|word| word.strip_suffix('s').unwrap_or(word))
        .filter(|word| word.len() > 1 && !STOP_WORDS.contains(word))
        .map(|word| word.chars().take(STEM_LETTERS).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_found(text: &str) -> usize {
        check(&SourceFile::new("a.rs", text)).len()
    }

    #[test]
    fn a_comment_that_restates_the_next_line_is_found() {
        for text in [
            "// Create the queue.\nlet queue = Queue::create();",
            "    // returns the learning rates\n    return self.learning_rate;",
            "// Update momentumEncoder\nmomentum_encoder.updated();",
        ] {
            assert_eq!(n_found(text), 1, "{text}");
        }
    }

    #[test]
    fn a_comment_that_says_why_or_gives_a_shape_is_not() {
        for text in [
            "// Numbers at the top would favor small remainders.\nlet zone = MAX - MAX % n;",
            "// [N, 1+K]\nlet logits = cat(l_pos, l_neg);",
            "/// The queue.\nqueue: Queue,",
            "// Create the queue.\n// It begins full of noise.\nlet queue = Queue::create();",
        ] {
            assert_eq!(n_found(text), 0, "{text}");
        }
    }
}
