//! The message of each error stands in a test: all that its text says between the values, in that order.
//!
//! A message that no test has may say anything; so may one of which a test has but a word.

use super::{Problem, lexer};
use crate::tree::SourceFile;

/// Variants whose message no test has yet. A new one belongs into a test and not here.
const UNTESTED: &[&str] = &[
    "crates/datasets/src/error.rs: Reader",
    "crates/encoders/src/encoder.rs: NoChannels",
    "crates/feed/src/error.rs: NoSubstitute",
    "crates/ingest/src/error.rs: ManifestEncode",
    "crates/ingest/src/error.rs: IndexTooLarge",
    "crates/ingest/src/error.rs: CacheClosed",
    "crates/moco/src/error.rs: NeedsCpu",
    "crates/moco/src/error.rs: NotFiniteOnDevice",
    "crates/ops/src/error.rs: Device",
    "crates/ops/src/error.rs: Kernel",
    "crates/optim/src/error.rs: Candle",
    "crates/optim/src/error.rs: Buffer",
    "crates/optim/src/error.rs: LearningRate",
    "crates/train/src/error.rs: BadSampleBudget",
    "crates/train/src/error.rs: Unhealthy",
    "crates/train/src/error.rs: ForkUnfit",
];

/// The most characters between two parts of a message in a test: a value, such as a path.
const LONGEST_VALUE: usize = 400;

/// Messages of libraries that no test has, and listed ones that a test has by now.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    check_but(UNTESTED, files)
}

fn check_but(untested: &[&str], files: &[SourceFile]) -> Vec<Problem> {
    let rust = || files.iter().filter(|file| file.has_extension("rs"));
    let modules: Vec<String> = rust().flat_map(test_modules).collect();
    let tests: Vec<String> = rust().map(|file| tests_of(file, &modules)).collect();
    let mut problems = Vec::new();
    let libraries =
        rust().filter(|file| file.path.starts_with("crates/") && file.path.contains("/src/"));
    for file in libraries {
        for Variant { line_idx, name, message } in variants(file.text()) {
            let is_tested = tests.iter().any(|text| has(text, &message));
            let is_listed = untested.contains(&format!("{}: {name}", file.path).as_str());
            let text = match (is_tested, is_listed) {
                (false, false) => format!(
                    "no test has the whole message of `{name}`, nor does the list in messages.rs: {message}"
                ),
                (true, true) => format!("`{name}` is tested: take it off the list in messages.rs"),
                _ => continue,
            };
            problems.push(Problem::in_line(file, line_idx, text));
        }
    }
    problems
}

/// The files that a file includes for tests only.
fn test_modules(file: &SourceFile) -> Vec<String> {
    let text = file.text();
    let after = text.split("#[cfg(test)]\nmod ").skip(1);
    let names = after.filter_map(|rest| Some(rest.split_once(';')?.0));
    let is_name = |name: &&str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    // `mod a;` of `b/mod.rs` and of `lib.rs` is beside them, that of `b.rs` in the folder `b`.
    let is_root = ["mod.rs", "lib.rs", "main.rs"].contains(&file.name());
    let folder = if is_root { file.folder() } else { file.path.trim_end_matches(".rs") };
    names.filter(is_name).map(|name| format!("{folder}/{name}.rs")).collect()
}

/// The tests in a file, their strings as they read.
fn tests_of(file: &SourceFile, modules: &[String]) -> String {
    let is_test = file.path.contains("tests/") || modules.contains(&file.path);
    let text = file.text();
    lexer::unescaped(&if is_test { text.to_owned() } else { lexer::only_tests(text) })
}

/// A variant with a message of its own.
struct Variant {
    line_idx: usize,
    name: String,
    message: String,
}

/// The variants after `#[error("…")]`.
fn variants(text: &str) -> Vec<Variant> {
    let code: Vec<char> = lexer::code_only(&lexer::without_tests(text)).chars().collect();
    let attribute: Vec<char> = "#[error(".chars().collect();
    let mut found = Vec::new();
    for at in (0..code.len()).filter(|at| code[*at..].starts_with(&attribute)) {
        let end = lexer::closing(&code, at + 1);
        // Transparent errors have no message of their own.
        let inside: String = code[at + attribute.len()..end].iter().collect();
        let message = lexer::literal_after(text, at).filter(|_| !inside.contains("transparent"));
        let name: String = code[end + 1..].iter().collect();
        let name = name.trim_start().chars().take_while(|c| c.is_alphanumeric()).collect();
        let line_idx = code[..at].iter().filter(|c| **c == '\n').count();
        found.extend(message.map(|message| Variant { line_idx, name, message }));
    }
    found
}

/// Whether a text has a message with any values in the places of its own.
fn has(text: &str, message: &str) -> bool {
    let parts: Vec<&str> = parts(message);
    let Some((first, others)) = parts.split_first() else { return true };
    text.match_indices(first).any(|(at, _)| {
        let mut rest = &text[at + first.len()..];
        others.iter().all(|part| {
            let Some(at) = rest.find(part) else { return false };
            // Messages of several lines have line ends of their own beside their values.
            let value = rest[..at].trim();
            rest = &rest[at + part.len()..];
            value.len() <= LONGEST_VALUE && !value.contains('\n')
        })
    })
}

/// What a message says between its values, but blanks and punctuation only.
fn parts(message: &str) -> Vec<&str> {
    let texts = message.split('{').enumerate().map(|(i, text)| match i {
        0 => text,
        _ => text.split_once('}').map_or("", |(_, after)| after),
    });
    let says = |text: &&str| text.contains(char::is_alphanumeric);
    texts.map(str::trim).filter(says).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: &str = "\
enum E {
    /// Too large.
    #[error(\"{} has {n:?} bytes, {limit} are allowed; \\
             hint: {hint}\", path.display())]
    TooLarge { n: u64 },
    #[error(transparent)]
    Other(#[from] Other),
}
";

    fn found(test: &str, untested: &[&str]) -> Vec<String> {
        let files = [("crates/a/src/error.rs", ERRORS), ("crates/a/tests/a.rs", test)];
        let files = files.map(|(path, text)| SourceFile::new(path, text));
        check_but(untested, &files).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_test_must_have_the_whole_message() {
        let problem = "crates/a/src/error.rs:3: no test has the whole message of `TooLarge`, nor \
                       does the list in messages.rs: {} has {n:?} bytes, {limit} are allowed; hint: {hint}";
        for (test, is_whole) in [
            ("\"a.jpg has 7 bytes, 5 are allowed; hint: cut it\"", true),
            ("format!(\"{path} has 7 bytes, \\\n    5 are allowed; hint: cut it\")", true),
            ("\"a.jpg has 7 bytes,\n  5 are allowed; hint: cut it\"", true),
            ("\"a.jpg has 7 bytes, 5 are allowed\"", false),
            ("\"5 are allowed; hint: has 7 bytes,\"", false),
            ("\"a.jpg has 7\"\n\" bytes, 5 are allowed; hint: cut it\"", false),
        ] {
            let expected: Vec<&str> = if is_whole { Vec::new() } else { vec![problem] };
            assert_eq!(found(test, &[]), expected, "{test}");
        }
    }

    #[test]
    fn a_module_of_tests_is_a_file_of_its_own() {
        let message = "a.jpg has 7 bytes, 5 are allowed; hint: cut it";
        for (parent, module, n_problems) in [
            ("crates/a/src/lib.rs", "crates/a/src/faults.rs", 0),
            ("crates/a/src/b.rs", "crates/a/src/b/faults.rs", 0),
            ("crates/a/src/b.rs", "crates/a/src/faults.rs", 1),
        ] {
            let files = [
                ("crates/a/src/error.rs", ERRORS),
                (parent, "#[cfg(test)]\nmod faults;\n"),
                (module, message),
            ];
            let files = files.map(|(path, text)| SourceFile::new(path, text));
            assert_eq!(check_but(&[], &files).len(), n_problems, "{module}");
        }
    }

    #[test]
    fn what_is_tested_leaves_the_list() {
        let listed = ["crates/a/src/error.rs: TooLarge"];
        assert_eq!(found("", &listed), Vec::<String>::new());
        assert_eq!(
            found("has 7 bytes, 5 are allowed; hint:", &listed),
            ["crates/a/src/error.rs:3: `TooLarge` is tested: take it off the list in messages.rs"]
        );
    }
}
