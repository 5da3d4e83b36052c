//! The examples of `docs/extend.md`: each is a diff, all are applied together to a copy of the repository, and the
//! copy is checked. So the page shows code that compiles, and what it costs to add something: a diff that changes
//! more than three files besides those that it brings is refused.

mod patch;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use self::patch::{Patch, patches};
use crate::cuda::Kit;
use crate::tree::{self, SourceFile};

/// The page with the diffs.
const PAGE: &str = "docs/extend.md";
/// Files that one of them may change besides those that it brings.
const MOST_CHANGED: usize = 3;

/// Applies the page's diffs and checks what comes out, with the dependencies that clippy's step has checked.
pub(crate) fn run() -> anyhow::Result<()> {
    let copy = tree::root().join("target").join("extend");
    let files = tree::files(tree::root())?;
    let page = files.iter().find(|file| file.path == PAGE).with_context(|| format!("no {PAGE}"))?;
    let patches = patches(PAGE, page.text())?;
    if patches.is_empty() {
        bail!("{PAGE} has no diffs");
    }
    let n_changed = write_copy(&files, &patches, &copy)?;
    println!("{} diffs change {n_changed} files of {}", patches.len(), copy.display());
    let mut cargo = Command::new("cargo");
    cargo.args(["check", "--release", "--workspace", "--locked", "--quiet"]);
    cargo.args(["--features", FEATURES]).envs(Kit::Check.environment()?).current_dir(&copy);
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("with the diffs of {PAGE}, `cargo check` in {}: {status}", copy.display());
    }
    Ok(())
}

/// Those that change which dependencies are there, so that none is checked twice.
const FEATURES: &str =
    "moco-ingest/remote,moco-pretrain/remote,moco-pretrain/cifar,moco-shard/remote";

/// Brings the copy up to date, and returns how many of its files the diffs made or changed. A file that is as it
/// should be is not touched: cargo goes by the time of the last change.
fn write_copy(files: &[SourceFile], patches: &[Patch], copy: &Path) -> anyhow::Result<usize> {
    let patched = patch::apply(files, patches)?;
    for patch in patches {
        let n_changed = patch.changed().count();
        if n_changed > MOST_CHANGED {
            let changed: Vec<&str> = patch.changed().collect();
            bail!(
                "{} changes {n_changed} files besides its own, {MOST_CHANGED} are allowed: {}",
                patch.place,
                changed.join(", ")
            );
        }
    }
    let is_there =
        |path: &str| patched.contains_key(path) || files.iter().any(|file| file.path == path);
    if copy.exists() {
        for old in tree::files(copy)?.iter().filter(|old| !is_there(&old.path)) {
            fs::remove_file(copy.join(&old.path)).with_context(|| old.path.clone())?;
        }
    }
    for file in files.iter().filter(|file| !patched.contains_key(&file.path)) {
        let bytes = fs::read(tree::root().join(&file.path)).with_context(|| file.path.clone())?;
        write(&copy.join(&file.path), &bytes)?;
    }
    for (path, text) in &patched {
        write(&copy.join(path), text.as_bytes())?;
    }
    Ok(patched.len())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A diff that adds a line to each of these files, and brings one.
    fn diff(changed: &[&str]) -> String {
        let changes = changed
            .iter()
            .map(|path| format!("--- a/{path}\n+++ b/{path}\n@@ -1,1 +1,2 @@\n one\n+two\n"));
        let own = "--- /dev/null\n+++ b/own.rs\n@@ -0,0 +1,1 @@\n+mine\n";
        format!("text\n```diff\n{}{own}```\n", changes.collect::<String>())
    }

    #[test]
    fn a_copy_is_patched_and_kept_up_to_date() {
        let copy = std::env::temp_dir().join(format!("moco-extend-{}", std::process::id()));
        fs::create_dir_all(&copy).unwrap();
        fs::write(copy.join("outdated"), "").unwrap();
        // The bytes of a file that no diff changes are those of the repository.
        let files = [SourceFile::new("xtask/Cargo.toml", ""), SourceFile::new("a", "one\n")];
        let all = patches("page.md", &diff(&["a"])).unwrap();
        assert_eq!(write_copy(&files, &all, &copy).unwrap(), 2);
        let read = |name: &str| fs::read_to_string(copy.join(name)).unwrap();
        assert_eq!((read("a"), read("own.rs")), ("one\ntwo\n".into(), "mine\n".into()));
        assert!(read("xtask/Cargo.toml").contains("name = \"xtask\""));
        assert!(!copy.join("outdated").exists());
        fs::remove_dir_all(&copy).unwrap();
    }

    #[test]
    fn a_diff_that_changes_too_much_is_refused() {
        let names = ["a", "b", "c", "d"];
        let files = names.map(|name| SourceFile::new(name, "one\n"));
        let all = patches("page.md", &diff(&names)).unwrap();
        let error = write_copy(&files, &all, Path::new("nowhere")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "page.md:2 changes 4 files besides its own, 3 are allowed: a, b, c, d"
        );
    }
}
