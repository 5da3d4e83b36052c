//! No tuple pattern in a function's signature: values that belong together have a struct and its name.

use super::{Problem, lexer};
use crate::tree::SourceFile;

const TEXT: &str =
    "a tuple pattern in a signature; name the group by a struct, or pass its values one by one";

/// One problem for each tuple pattern in a signature; tests and closures are free.
pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    let tests = file.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    if tests || !file.has_extension("rs") {
        return Vec::new();
    }
    let code = lexer::code_only(&lexer::without_tests(file.text()));
    let line_idx = |at: usize| code[..at].matches('\n').count();
    let patterns = signatures(&code).into_iter().flat_map(|open| tuple_patterns(&code, open));
    patterns.map(|at| Problem::in_line(file, line_idx(at), TEXT)).collect()
}

/// The characters from `start`, each with its place and the one before it; the `>` of `->` and `=>` is left
/// out.
fn signs(code: &str, start: usize) -> impl Iterator<Item = (usize, char, char)> {
    let before = std::iter::once(' ').chain(code[start..].chars());
    let all = code[start..].char_indices().zip(before);
    all.map(move |((at, c), before)| (start + at, c, before))
        .filter(|(_, c, before)| *c != '>' || !matches!(before, '-' | '='))
}

/// Where the argument list of each named function opens.
fn signatures(code: &str) -> Vec<usize> {
    let of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '#');
    let mut opens = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name = at + "fn ".len();
        let is_word = !code[..at].ends_with(of_name);
        let rest = code[name..].trim_start();
        let after = code.len() - rest.trim_start_matches(of_name).len();
        let named = rest.starts_with(of_name);
        opens.extend((is_word && named).then(|| behind_generics(code, after)).flatten());
    }
    opens
}

/// The `(` at `start` or behind the `<…>` there.
fn behind_generics(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c, _) in signs(code, start) {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            '(' if depth == 0 => return Some(at),
            _ if depth == 0 && !c.is_whitespace() => return None,
            _ => {}
        }
    }
    None
}

/// Where a tuple pattern opens in the argument list that opens at `open`.
fn tuple_patterns(code: &str, open: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut angles = 0_usize;
    let mut in_pattern = true;
    for (at, c, before) in signs(code, open) {
        // What a name stands before is a tuple struct or an attribute.
        let tuple = c == '(' && !before.is_alphanumeric() && !matches!(before, '_' | '>');
        if tuple && depth > 0 && in_pattern {
            found.push(at);
        }
        depth = lexer::depth_after(depth, c);
        match c {
            ':' if depth == 1 => in_pattern = false,
            '<' if !in_pattern => angles += 1,
            '>' => angles = angles.saturating_sub(1),
            ',' if depth == 1 && angles == 0 => in_pattern = true,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::new(path, text)).into_iter().map(|problem| problem.place).collect()
    }

    #[test]
    fn a_tuple_pattern_is_found_with_its_line() {
        let problems = check(&SourceFile::new("a.rs", "//! A.\nfn f((a, b): (A, B)) {}"));
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let expected = "a.rs:2: a tuple pattern in a signature; name the group by a struct, or pass its \
                        values one by one";
        assert_eq!(problem.to_string(), expected);
    }

    #[test]
    fn a_tuple_pattern_is_found_wherever_a_function_may_stand() {
        for (text, expected) in [
            ("fn f(\n    x: A,\n    (a, b): (A, B),\n) {}", &["a.rs:3"][..]),
            ("fn f(\n    (a, b): (A, B),\n    (c, d): (C, D),\n) {}", &["a.rs:2", "a.rs:3"]),
            ("trait T {\n    fn f(&self, (a, b): (A, B)) -> C { C }\n}", &["a.rs:2"]),
            ("impl<T> A<T> {\n    pub fn f(&mut self, (a, b): (A, B)) {}\n}", &["a.rs:2"]),
            ("fn f<F: Fn(A) -> B, const N: usize>(\n    (a, b): &(A, F),\n) {}", &["a.rs:2"]),
            ("fn f(x: M<A, B>,\n    (a, b): (A, B)) {}", &["a.rs:2"]),
            ("fn f(x: impl Fn(A) -> B,\n    &(a, b): &(A, B)) {}", &["a.rs:2"]),
            ("fn f(mut x: A,\n    [(a, b), _]: [(A, B); 2]) {}", &["a.rs:2"]),
            ("fn $name((a, b): (A, B)) {}", &["a.rs:1"]),
            ("#[cfg(test)]\nmod tests { fn f() {} }\nfn f((a, b): (A, B)) {}", &["a.rs:3"]),
            ("#[cfg(test)]\nmod tests;\nfn f((a, b): (A, B)) {}", &["a.rs:3"]),
        ] {
            assert_eq!(lines("a.rs", text), expected, "{text}");
        }
    }

    #[test]
    fn other_patterns_types_closures_and_tests_are_free() {
        for text in [
            "fn f(pair: (A, B), all: M<A, (B, C)>) -> (A, B) {}",
            "fn f(Range { start, end }: Range<A>, [a, b]: [A; 2], Id(id): Id) {}",
            "fn f(#[expect(dead_code)] x: A, m::Id(id): m::Id) {}",
            "fn f(x: fn((A, B), C) -> (A, B)) { g(|(a, b)| a + b) }",
            "// fn f((a, b): (A, B)) {}\nconst TEXT: &str = \"fn f((a, b): (A, B)) {}\";",
            "#[cfg(test)]\nmod tests {\n    fn f((a, b): (A, B)) {}\n}",
            "type F = fn ((A, B)); let define = define_fn ((a, b));",
        ] {
            assert_eq!(lines("a.rs", text), Vec::<String>::new(), "{text}");
        }
        let text = "fn f((a, b): (A, B)) {}";
        for (path, n_found) in [
            ("crates/a/tests/b.rs", 0),
            ("tests/b.rs", 0),
            ("crates/a/src/tests.rs", 0),
            ("docs/a.md", 0),
            ("xtask/src/b.rs", 1),
        ] {
            assert_eq!(lines(path, text).len(), n_found, "{path}");
        }
    }
}
