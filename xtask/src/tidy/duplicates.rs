//! Function bodies that are in the workspace twice.

use std::collections::BTreeMap;

use super::{Problem, lexer};
use crate::tree::SourceFile;

/// Shorter bodies are alike by nature.
const MIN_LINES: usize = 6;

/// One problem for each body that occurs more than once outside tests.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.has_extension("rs") && !is_test(&file.path)) {
        for (name, body) in functions(file.text()) {
            places.entry(body).or_default().push(format!("{}: fn {name}", file.path));
        }
    }
    let twice = places.values().filter(|places| places.len() > 1);
    twice
        .map(|places| Problem::new(&places[0], format!("same body as {}", places[1..].join(", "))))
        .collect()
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs")
}

/// The name and the body, without white space and comments, of each function of some length.
fn functions(text: &str) -> Vec<(String, String)> {
    let text = lexer::without_tests(text);
    let code: Vec<char> = lexer::code_only(&text).chars().collect();
    let text: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    for (name_at, name) in names(&code) {
        let Some(open) = (name_at..code.len()).find(|at| matches!(code[*at], '{' | ';')) else {
            continue;
        };
        let close = (lexer::closing(&code, open) + 1).min(code.len());
        let n_lines = code[open..close].iter().filter(|c| **c == '\n').count();
        if code[open] == '{' && n_lines + 1 >= MIN_LINES {
            found.push((name, normalized(&text[open..close], &code[open..close])));
        }
    }
    found
}

/// Each word after `fn`, and where it ends.
fn names(code: &[char]) -> Vec<(usize, String)> {
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let starts = (0..code.len()).filter(|at| {
        code[*at..].starts_with(&['f', 'n', ' ']) && (*at == 0 || !word(&code[*at - 1]))
    });
    starts
        .map(|at| {
            let name: String = code[at + 3..].iter().take_while(|c| word(c)).collect();
            (at + 3 + name.chars().count(), name)
        })
        .collect()
}

/// The body without white space; strings stay, since bodies that differ in a string differ.
fn normalized(text: &[char], code: &[char]) -> String {
    let mut out = String::new();
    let mut in_comment = false;
    for (at, c) in text.iter().enumerate() {
        let blanked = code[at] == ' ' && *c != ' ';
        if blanked && *c == '/' && text.get(at + 1) == Some(&'/') {
            in_comment = true;
        }
        in_comment &= *c != '\n';
        if !in_comment && !c.is_whitespace() {
            out.push(*c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "fn sum(n: u32) -> u32 {
    let mut sum = 0;
    for i in 0..n {
        sum += i; // running
    }
    sum
}";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
        check(&files).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_same_body_in_two_crates_is_found() {
        let other =
            LONG.replace("fn sum", "fn total").replace(" // running", "").replace("    ", "  ");
        let expected = "a/src/a.rs: fn sum: same body as b/src/b.rs: fn total";
        assert_eq!(found(&[("a/src/a.rs", LONG), ("b/src/b.rs", &other)]), [expected]);
    }

    #[test]
    fn other_code_short_bodies_and_tests_are_not() {
        let other = LONG.replace("sum += i", "sum += 2 * i");
        let short = "fn one() -> u32 {\n    1\n}";
        let none = Vec::<String>::new();
        assert_eq!(found(&[("a/src/a.rs", LONG), ("b/src/b.rs", &other)]), none);
        assert_eq!(found(&[("a/src/a.rs", short), ("b/src/b.rs", short)]), none);
        assert_eq!(found(&[("a/src/a.rs", LONG), ("b/tests/b.rs", LONG)]), none);
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{LONG}\n}}");
        assert_eq!(found(&[("a/src/a.rs", LONG), ("b/src/b.rs", &in_tests)]), none);
    }

    #[test]
    fn bodies_that_differ_in_a_string_differ() {
        let text = |word: &str| LONG.replace("sum\n}", &format!("say(\"{word}\")\n}}"));
        let (one, two) = (text("one"), text("two"));
        assert_eq!(found(&[("a.rs", &one), ("b.rs", &two)]), Vec::<String>::new());
        assert_eq!(found(&[("a.rs", &one), ("b.rs", &one)]).len(), 1);
    }
}
