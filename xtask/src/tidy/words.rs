//! Words, signs and paths that must not be in the text of this repository.

use super::Problem;
use crate::tree::SourceFile;

/// This file quotes what it bans.
const SELF: &str = "xtask/src/tidy/words.rs";

/// Marks of unfinished work, matched as written.
const MARKERS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

/// Excuses and praise, matched in any case.
const PHRASES: [&str; 17] = [
    "for now",
    "placeholder",
    "in a real implementation",
    "in a production",
    "not yet implemented",
    "left as an exercise",
    "quick and dirty",
    "blazing",
    "lightning-fast",
    "state-of-the-art",
    "cutting-edge",
    "world-class",
    "seamless",
    "effortless",
    "best-in-class",
    "enterprise-grade",
    "production-ready",
];

/// Folders of one machine.
const FOLDERS: [&str; 5] = ["/root", "/tmp", "/work", "/home", "/Users"];

/// Where packages come from is the business of the user's own settings.
const HOSTS: [&str; 7] = [
    "index.crates.io",
    "static.crates.io",
    "pypi.org",
    "pythonhosted.org",
    "registry.npmjs.org",
    "index-url",
    "localhost:",
];

/// Problems of one file; binary files have none.
pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    if file.path == SELF || file.path == "Cargo.lock" {
        return Vec::new();
    }
    let prose = ["rs", "md", "toml", "py"].iter().any(|kind| file.has_extension(kind));
    let mut problems = Vec::new();
    for (line_idx, line) in file.text().lines().enumerate() {
        let mut report = |text: String| problems.push(Problem::in_line(file, line_idx, text));
        if prose {
            if let Some(word) = banned_word(line) {
                report(format!("`{word}` says that something is missing, or sells it"));
            }
            if let Some(sign) = line.chars().find(|sign| is_emoji(*sign)) {
                report(format!("U+{:04X} is an emoji", u32::from(sign)));
            }
        }
        if let Some(folder) = FOLDERS.iter().find(|folder| has_folder(line, folder)) {
            report(format!("`{folder}` is a folder of one machine"));
        }
        if let Some(host) = HOSTS.iter().find(|host| line.contains(**host)) {
            report(format!("`{host}` belongs in the user's settings"));
        }
    }
    problems
}

fn banned_word(line: &str) -> Option<&'static str> {
    let lower = line.to_lowercase();
    let marker = MARKERS.into_iter().find(|marker| has_word(line, marker));
    marker.or_else(|| PHRASES.into_iter().find(|phrase| has_start(&lower, phrase)))
}

/// Whether `word` occurs with no letter before or after it.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(letter) && !line[at + word.len()..].starts_with(letter)
    })
}

/// Whether `phrase` begins a word; "blazing" is to find "blazingly" too, but "for now" not "for nowhere".
fn has_start(line: &str, phrase: &str) -> bool {
    if phrase.ends_with("now") {
        return has_word(line, phrase);
    }
    line.match_indices(phrase).any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric))
}

/// Whether an absolute path into `folder` begins somewhere in the line.
fn has_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let begins =
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~*)}]/$%".contains(c));
        let ends = !line[at + folder.len()..]
            .starts_with(|c: char| c.is_alphanumeric() || "_-".contains(c));
        begins && ends
    })
}

fn is_emoji(sign: char) -> bool {
    matches!(u32::from(sign), 0x1F000..=0x1FAFF | 0x2600..=0x27BF | 0x2B50 | 0xFE0F)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::new(path, text)).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn excuses_and_praise_are_found() {
        for line in [
            "// TODO: wrap",
            "the result (FIXME)",
            "A simple loop, for now.",
            "returns a Placeholder",
            "In a real implementation this would",
            "blazingly fast",
        ] {
            assert_eq!(found("a.rs", line).len(), 1, "{line}");
            assert_eq!(found("a.bin", line).len(), 0, "{line}");
        }
    }

    #[test]
    fn words_that_only_contain_them_are_left_alone() {
        for line in ["fn to_do()", "let todo_list", "for nowhere", "HACKNEY", "wait for noway"] {
            assert_eq!(found("a.rs", line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn emoji_are_found_and_mathematical_signs_are_not() {
        assert_eq!(found("a.md", "done \u{2705}"), ["a.md:1: U+2705 is an emoji"]);
        assert_eq!(found("a.md", "\u{1F680}"), ["a.md:1: U+1F680 is an emoji"]);
        assert_eq!(found("a.md", "τ ≤ 0.2 × ½ → q·k ± 1 — [N, 1+K]"), Vec::<String>::new());
    }

    #[test]
    fn folders_of_one_machine_are_found_in_any_text_file() {
        for line in
            ["open(\"/tmp/x\")", "see /root", "cd /work/main", "=/home/me/runs", "`/Users/me`"]
        {
            assert_eq!(found("a.sh", line).len(), 1, "{line}");
        }
        for line in ["tests/tmp/a", "{root}/work", "/workers", "the /tmpfs", "https://a.b/home/"] {
            assert_eq!(found("a.sh", line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn registry_hosts_are_found() {
        let expected = "requirements.txt:1: `index-url` belongs in the user's settings";
        assert_eq!(found("requirements.txt", "--index-url https://x.y/simple"), [expected]);
    }
}
