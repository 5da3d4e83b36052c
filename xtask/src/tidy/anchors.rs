//! What the texts name in a file must be there: ``[file](path): `name` ``, several names after commas.
//!
//! Line numbers would be wrong after the next edit, so texts point to an item by its name. That the file
//! itself exists is also a rule of `links.rs`.

use super::Problem;
use super::links::resolved;
use crate::tree::SourceFile;

/// Each row of its tables leads somewhere: what the papers say, and where it is.
const PAPER_MAP: &str = "docs/paper-map.md";

/// A name that a text says is in a file.
#[derive(Debug, PartialEq, Eq)]
struct Anchor<'a> {
    /// As the link has it, relative to the folder of the text.
    target: &'a str,
    name: &'a str,
}

/// Names that are not in the file beside them, and rows of the paper map without any.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        let lines: Vec<&str> = file.text().lines().collect();
        for (line_idx, line) in lines.iter().enumerate() {
            let anchors = anchors(line);
            if file.path == PAPER_MAP && is_row(&lines, line_idx) && anchors.is_empty() {
                let text = "has no `[file](path): `name``";
                problems.push(Problem::in_line(file, line_idx, text));
            }
            for Anchor { target, name } in anchors {
                let path = resolved(file.folder(), target);
                let named = files.iter().find(|file| file.path == path);
                if !named.is_some_and(|named| has_word(named.text(), name)) {
                    let text = format!("`{name}` is not in `{path}`");
                    problems.push(Problem::in_line(file, line_idx, text));
                }
            }
        }
    }
    problems
}

/// Whether a line is a row of a table and not its head.
fn is_row(lines: &[&str], line_idx: usize) -> bool {
    let is_rule = |line: &str| line.starts_with("|-") || line.starts_with("| -");
    let head = lines.get(line_idx + 1).is_some_and(|next| is_rule(next));
    lines[line_idx].starts_with('|') && !is_rule(lines[line_idx]) && !head
}

/// The names that follow each link of a line.
fn anchors(line: &str) -> Vec<Anchor<'_>> {
    let mut found = Vec::new();
    for (target, mut rest) in line.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
        let mut separator = ": `";
        while let Some((name, after)) =
            rest.strip_prefix(separator).and_then(|rest| rest.split_once('`'))
        {
            found.push(Anchor { target, name });
            (rest, separator) = (after, ", `");
        }
    }
    found
}

/// Whether `name` occurs and is not a part of a longer name.
fn has_word(text: &str, name: &str) -> bool {
    let of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let longer_before = name.starts_with(of_name) && text[..at].ends_with(of_name);
        let longer_behind = name.ends_with(of_name) && text[at + name.len()..].starts_with(of_name);
        !longer_before && !longer_behind
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    fn found(path: &str, text: &str) -> Vec<String> {
        let files = [
            SourceFile::new(path, text),
            SourceFile::new("crates/a/src/b.rs", "fn step_shuffled() {}\nconst K: u32 = 1;\n"),
        ];
        check(&files).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_name_that_is_gone_is_found() {
        let link = "[b.rs](../crates/a/src/b.rs)";
        let none = Vec::<String>::new();
        for names in ["`fn step_shuffled`", "`const K`, `fn step_shuffled`", "`step_shuffled() {}`"]
        {
            assert_eq!(found("docs/map.md", &format!("{link}: {names}.")), none, "{names}");
        }
        for (names, gone) in [
            ("`fn step`", "fn step"),
            ("`shuffled`", "shuffled"),
            ("`const K`, `fn gone`, `fn step_shuffled`", "fn gone"),
        ] {
            let expected = format!("docs/map.md:2: `{gone}` is not in `crates/a/src/b.rs`");
            assert_eq!(found("docs/map.md", &format!("\n{link}: {names}")), [expected]);
        }
    }

    #[test]
    fn a_file_that_is_gone_is_found() {
        for (target, path) in
            [("../crates/a/src/c.rs", "crates/a/src/c.rs"), ("../crates/a", "crates/a")]
        {
            let expected = format!("docs/map.md:1: `fn f` is not in `{path}`");
            assert_eq!(found("docs/map.md", &format!("[x]({target}): `fn f`")), [expected]);
        }
    }

    #[test]
    fn links_without_names_and_names_without_links_are_left_alone() {
        let text = "[x](../crates/a/src/b.rs), `fn f`; [y](../crates/a/src/b.rs): fn f; `fn g`";
        assert_eq!(found("docs/map.md", text), Vec::<String>::new());
        assert_eq!(found("a.rs", "//! [x](b.rs): `fn f`"), Vec::<String>::new());
    }

    #[test]
    fn each_row_of_the_paper_map_leads_somewhere() {
        let head = "| paper | here |\n|---|---|\n";
        let row = "| Eq. (1) | [b.rs](../crates/a/src/b.rs): `const K` |\n";
        let none = Vec::<String>::new();
        assert_eq!(found(PAPER_MAP, &format!("{head}{row}")), none);
        let bare = "| Eq. (2) | crates/a/src/b.rs:2 |\n";
        let expected = "docs/paper-map.md:4: has no `[file](path): `name``";
        assert_eq!(found(PAPER_MAP, &format!("{head}{row}{bare}")), [expected]);
        assert_eq!(found("docs/other.md", &format!("{head}{bare}")), none);
    }

    /// From the README in two clicks to each place of the papers, of which there are at least fifteen.
    #[test]
    fn the_readme_leads_to_the_places_of_the_papers() {
        let files = tree::files(tree::root()).unwrap();
        let text = |path| files.iter().find(|file| file.path == path).unwrap().text();
        assert!(text("README.md").contains(&format!("]({PAPER_MAP})")));
        let lines: Vec<&str> = text(PAPER_MAP).lines().collect();
        let rows = (0..lines.len()).filter(|line_idx| is_row(&lines, *line_idx));
        assert!(rows.count() >= 15);
    }
}
