//! Other programs, run to their end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::tree;

/// Runs a command to its end.
pub(super) fn call(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?}: {status}") }
}

/// The folder of a dependency's source, as cargo has unpacked it.
pub(super) fn source_of(package: &str) -> anyhow::Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--locked", "--all-features"])
        .current_dir(tree::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", output.status);
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("what cargo metadata says")?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let manifest = packages
        .iter()
        .find(|found| found["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .with_context(|| format!("{package} is no dependency"))?;
    Ok(Path::new(manifest).parent().unwrap_or(Path::new("")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_found() {
        assert!(source_of("cudarc").unwrap().join("src/driver/sys/mod.rs").is_file());
        assert!(source_of("no-such-package").unwrap_err().to_string().contains("no dependency"));
    }
}
