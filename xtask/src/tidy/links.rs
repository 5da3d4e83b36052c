//! What the texts refer to must exist: linked files, numbered deviations.

use super::Problem;
use crate::tree::SourceFile;

const DEVIATIONS: &str = "docs/deviations.md";

/// Links of Markdown files to nothing, and deviations that have no entry.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    let deviations = files.iter().find(|file| file.path == DEVIATIONS);
    let deviations = deviations.map_or("", SourceFile::text);
    let mut problems = Vec::new();
    for file in files {
        for (line_idx, line) in file.text().lines().enumerate() {
            if file.has_extension("md") {
                let dead = targets(line).filter(|target| !exists(files, file.folder(), target));
                problems.extend(dead.map(|target| {
                    Problem::in_line(
                        file,
                        line_idx,
                        format!("links to `{target}`, which is not here"),
                    )
                }));
            }
            if file.has_extension("rs") && !file.path.starts_with("xtask/") {
                let missing =
                    named_deviations(line).filter(|d| !deviations.contains(&format!("**{d}.")));
                problems.extend(missing.map(|deviation| {
                    Problem::in_line(
                        file,
                        line_idx,
                        format!("{DEVIATIONS} has no entry {deviation}"),
                    )
                }));
            }
        }
    }
    problems
}

/// Targets of `[text](target)` within the repository.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let ends = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let paths = ends.map(|(target, _)| target.split('#').next().unwrap_or(target));
    paths.filter(|path| !path.is_empty() && !path.contains("://"))
}

/// Whether a path relative to `folder` is a file or a folder with files.
fn exists(files: &[SourceFile], folder: &str, target: &str) -> bool {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let path = parts.join("/");
    files.iter().any(|file| file.path == path || file.path.starts_with(&format!("{path}/")))
}

/// `D3` of `deviation D3`.
fn named_deviations(line: &str) -> impl Iterator<Item = String> {
    let rests = line.split("deviation ").skip(1);
    rests.filter_map(|rest| {
        let digits = rest.strip_prefix('D')?;
        let n_digits = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        (n_digits > 0).then(|| format!("D{}", &digits[..n_digits]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let files = [
            SourceFile::new(path, text),
            SourceFile::new(DEVIATIONS, "**D1. Norm.**\n\n**D12. Other.**\n"),
            SourceFile::new("crates/a/src/lib.rs", ""),
        ];
        check(&files).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn links_lead_somewhere() {
        let none = Vec::<String>::new();
        for target in
            ["docs/deviations.md", "docs", "#names", "https://a.b/c", "docs/deviations.md#d1"]
        {
            assert_eq!(found("README.md", &format!("[x]({target})")), none, "{target}");
        }
        assert_eq!(found("docs/adr/1.md", "[x](../deviations.md) [y](../../crates/a/)"), none);
        let expected = "README.md:2: links to `docs/none.md`, which is not here";
        assert_eq!(found("README.md", "\n[x](docs), [y](docs/none.md)"), [expected]);
    }

    #[test]
    fn deviations_have_entries() {
        let none = Vec::<String>::new();
        assert_eq!(found("crates/a/src/b.rs", "// deviation D1, and (deviation D12)."), none);
        let expected = "crates/a/src/b.rs:1: docs/deviations.md has no entry D2";
        assert_eq!(found("crates/a/src/b.rs", "// deviation D2"), [expected]);
    }
}
