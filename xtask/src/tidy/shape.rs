//! What a file looks like from outside: its length; of a Rust file also its first line and its unsafe code.

use super::Problem;
use crate::tree::SourceFile;

const MAX_LINES: usize = 500;
const MAX_LIB_LINES: usize = 100;
const MAX_BIN_LINES: usize = 150;
/// The rest is for `docs`.
const MAX_README_LINES: usize = 90;

const README: &str = "README.md";

/// Crates whose kernels need unsafe code; every other root forbids it.
const MAY_BE_UNSAFE: [&str; 1] = ["crates/ops/"];

/// Problems of one file; none unless it is Rust or the README.
pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    let is_rust = file.has_extension("rs");
    if !is_rust && file.path != README {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let n_lines = file.text().lines().count();
    let max_lines = max_lines(&file.path);
    if n_lines > max_lines {
        problems.push(Problem::new(&file.path, format!("{n_lines} lines, at most {max_lines}")));
    }
    if is_rust && !file.text().starts_with("//!") {
        problems.push(Problem::new(&file.path, "does not begin with `//!` and what it holds"));
    }
    let root = ["src/lib.rs", "src/main.rs"].iter().any(|root| file.path.ends_with(root));
    let exempt = MAY_BE_UNSAFE.iter().any(|folder| file.path.starts_with(folder));
    if root && !exempt && !file.text().lines().any(|line| line == "#![forbid(unsafe_code)]") {
        problems.push(Problem::new(&file.path, "lacks `#![forbid(unsafe_code)]`"));
    }
    problems
}

fn max_lines(path: &str) -> usize {
    if path == README {
        MAX_README_LINES
    } else if path.ends_with("src/lib.rs") {
        MAX_LIB_LINES
    } else if path.starts_with("bins/") && path.ends_with("src/main.rs") {
        MAX_BIN_LINES
    } else {
        MAX_LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::new(path, text)).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_file_has_a_largest_length_by_its_kind() {
        let lines =
            |n: usize| format!("//! Doc.\n#![forbid(unsafe_code)]\n{}", "x\n".repeat(n - 2));
        for (path, most) in [
            ("crates/moco/src/queue.rs", 500),
            ("crates/moco/src/lib.rs", 100),
            ("bins/knn/src/main.rs", 150),
            ("README.md", 90),
        ] {
            assert_eq!(found(path, &lines(most)), Vec::<String>::new());
            let expected = format!("{path}: {} lines, at most {most}", most + 1);
            assert_eq!(found(path, &lines(most + 1)), [expected]);
        }
    }

    #[test]
    fn a_file_says_what_it_holds() {
        let expected = "a.rs: does not begin with `//!` and what it holds";
        assert_eq!(found("a.rs", "use std::fmt;\n"), [expected]);
        assert_eq!(found("a.md", "anything\n"), Vec::<String>::new());
    }

    #[test]
    fn a_root_forbids_unsafe_code_unless_it_holds_kernels() {
        let expected = "crates/moco/src/lib.rs: lacks `#![forbid(unsafe_code)]`";
        assert_eq!(found("crates/moco/src/lib.rs", "//! Doc.\n"), [expected]);
        assert_eq!(found("crates/ops/src/lib.rs", "//! Doc.\n"), Vec::<String>::new());
    }
}
