//! The files of the checkout, as the checks see them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A file of the checkout.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// Path from the root, with `/` between the parts.
    pub(crate) path: String,
    /// Its text; `None` if it is not UTF-8.
    pub(crate) text: Option<String>,
}

impl SourceFile {
    /// A text file, for the samples of the tests.
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: Some(text.into()) }
    }

    /// The text, empty for a binary file.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Whether the name ends in `.extension`.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// The folder the file is in, from the root.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The file's own name.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }
}

/// Every file under `root` that `.gitignore` does not name, sorted by path. It asks the file system and
/// not git, so that it also works on a copy without history.
pub(crate) fn files(root: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let ignore_file = root.join(".gitignore");
    let ignored = Ignored::parse(&fs::read_to_string(&ignore_file).unwrap_or_default())?;
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        let entries = fs::read_dir(&full).with_context(|| format!("reading {}", full.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", full.display()))?;
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().replace('\\', "/");
            let kind = entry.file_type().with_context(|| format!("reading {name}"))?;
            if ignored.matches(&name) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).with_context(|| format!("reading {name}"))?;
                found.push(SourceFile { path: name, text: String::from_utf8(bytes).ok() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The patterns of a `.gitignore`, of the three kinds this repository uses.
#[derive(Debug)]
struct Ignored {
    at_root: Vec<String>,
    anywhere: Vec<String>,
    suffixes: Vec<String>,
}

impl Ignored {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut ignored = Self {
            at_root: vec![".git".into()],
            anywhere: vec!["__pycache__".into()],
            suffixes: Vec::new(),
        };
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let pattern = line.trim_end_matches('/');
            let (list, plain) = if let Some(suffix) = pattern.strip_prefix('*') {
                (&mut ignored.suffixes, suffix)
            } else if let Some(name) = pattern.strip_prefix('/') {
                (&mut ignored.at_root, name)
            } else {
                (&mut ignored.anywhere, pattern)
            };
            if plain.contains(['*', '?', '[', '!', '/']) {
                bail!(".gitignore: `{line}` is none of `/name`, `name` and `*.suffix`");
            }
            list.push(plain.into());
        }
        Ok(ignored)
    }

    fn matches(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.at_root.iter().any(|root| root == path)
            || self.anywhere.iter().any(|any| any == name)
            || self.suffixes.iter().any(|suffix| name.ends_with(suffix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_names_are_those_git_ignores() {
        let ignored = Ignored::parse("# comment\n/target\n/runs/\n.venv\n*.tmp\n").unwrap();
        for (path, expected) in [
            ("target", true),
            ("crates/target", false),
            ("runs", true),
            ("tests/.venv", true),
            ("crates/a.tmp", true),
            ("crates/a.rs", false),
            (".git", true),
        ] {
            assert_eq!(ignored.matches(path), expected, "{path}");
        }
    }

    #[test]
    fn a_pattern_it_does_not_know_is_an_error() {
        let message = Ignored::parse("a/*/b").unwrap_err().to_string();
        assert_eq!(message, ".gitignore: `a/*/b` is none of `/name`, `name` and `*.suffix`");
    }

    #[test]
    fn the_walk_finds_this_file_and_skips_the_build() {
        let files = files(root()).unwrap();
        assert!(files.iter().any(|file| file.path == "xtask/src/tree.rs"));
        assert!(files.iter().all(|file| !file.path.starts_with("target/")));
    }
}
