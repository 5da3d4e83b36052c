//! What the texts refer to must exist: linked files and their sections, numbered deviations.

use super::Problem;
use crate::tree::SourceFile;

const DEVIATIONS: &str = "docs/deviations.md";

/// Links of Markdown files to no file or to no section of it, and deviations that have no entry.
pub(super) fn check(files: &[SourceFile]) -> Vec<Problem> {
    let deviations = files.iter().find(|file| file.path == DEVIATIONS);
    let deviations = deviations.map_or("", SourceFile::text);
    let mut problems = Vec::new();
    for file in files {
        for (line_idx, line) in file.text().lines().enumerate() {
            if file.has_extension("md") {
                let dead = targets(line).filter(|target| !exists(files, file, target));
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
    ends.map(|(target, _)| target).filter(|target| !target.contains("://"))
}

/// Whether a link of the file `from` leads to a file or a folder with files, and where it names a section
/// of a text, to a heading.
fn exists(files: &[SourceFile], from: &SourceFile, target: &str) -> bool {
    let (path, section) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { from.path.clone() } else { resolved(from.folder(), path) };
    match files.iter().find(|file| file.path == path) {
        Some(file) => !file.has_extension("md") || section.is_empty() || has_section(file, section),
        None => files.iter().any(|file| file.path.starts_with(&format!("{path}/"))),
    }
}

/// A path from the root, from one that is relative to `folder`.
pub(super) fn resolved(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a heading of a Markdown file has this name in links.
fn has_section(file: &SourceFile, section: &str) -> bool {
    let mut in_code = false;
    file.text().lines().any(|line| {
        in_code ^= line.starts_with("```");
        let heading = line.trim_start_matches('#').strip_prefix(' ');
        let is_heading = line.starts_with('#') && !in_code;
        is_heading && heading.is_some_and(|heading| name_in_links(heading) == section)
    })
}

/// What forges make of a heading: small letters, hyphens for spaces, no other signs.
fn name_in_links(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
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
            SourceFile::new(DEVIATIONS, "# On `bf16`, NaN\n**D1. Norm.**\n\n**D12. Other.**\n"),
            SourceFile::new("crates/a/src/lib.rs", ""),
        ];
        check(&files).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn links_lead_somewhere() {
        let none = Vec::<String>::new();
        for target in ["docs/deviations.md", "docs", "crates/a/src/lib.rs#L1", "https://a.b/c#d"] {
            assert_eq!(found("README.md", &format!("[x]({target})")), none, "{target}");
        }
        assert_eq!(found("docs/adr/1.md", "[x](../deviations.md) [y](../../crates/a/)"), none);
        let expected = "README.md:2: links to `docs/none.md`, which is not here";
        assert_eq!(found("README.md", "\n[x](docs), [y](docs/none.md)"), [expected]);
    }

    #[test]
    fn links_lead_to_sections() {
        let none = Vec::<String>::new();
        assert_eq!(found("README.md", "## Own: names\n[x](#own-names)"), none);
        assert_eq!(found("README.md", "[x](docs/deviations.md#on-bf16-nan)"), none);
        for target in ["#own-names", "docs/deviations.md#on-bf16"] {
            let expected = format!("README.md:4: links to `{target}`, which is not here");
            let text = format!("```\n# Own names\n```\n[x]({target})");
            assert_eq!(found("README.md", &text), [expected]);
        }
    }

    #[test]
    fn deviations_have_entries() {
        let none = Vec::<String>::new();
        assert_eq!(found("crates/a/src/b.rs", "// deviation D1, and (deviation D12)."), none);
        let expected = "crates/a/src/b.rs:1: docs/deviations.md has no entry D2";
        assert_eq!(found("crates/a/src/b.rs", "// deviation D2"), [expected]);
    }
}
