//! Builds the binary of a stage and becomes it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::tree;

/// The arguments of a stage.
#[derive(Debug, Args)]
pub(crate) struct StageArgs {
    /// Passed to the stage's binary untouched
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

/// Builds `name` in release mode and replaces this process by it; returns only if that fails.
pub(crate) fn run(name: &str, features: &[String], args: &[OsString]) -> anyhow::Result<()> {
    let binary = build(name, features)?;
    let error = Command::new(&binary).args(args).current_dir(tree::root()).exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

/// Builds the binary and returns its path; what cargo says goes to stderr as usual.
pub(crate) fn build(name: &str, features: &[String]) -> anyhow::Result<PathBuf> {
    build_in(name, features, &[])
}

/// The same in an environment with these variables.
pub(crate) fn build_in(
    name: &str,
    features: &[String],
    environment: &[(&str, OsString)],
) -> anyhow::Result<PathBuf> {
    let package = format!("moco-{name}");
    let output = Command::new("cargo")
        .args(["build", "--release", "--package", &package, "--bin", name])
        .arg(format!("--features={}", features.join(",")))
        .arg("--message-format=json-render-diagnostics")
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .current_dir(tree::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{package} does not build");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, name).with_context(|| format!("cargo named no binary `{name}`"))
}

/// The path in cargo's messages, which holds wherever the target folder is.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let mut programs = programs(messages);
    let is_ours = |message: &Value| {
        message["target"]["name"] == name && message["target"]["kind"][0] == "bin"
    };
    programs.find_map(|(message, path)| is_ours(&message).then_some(path))
}

/// The programs in cargo's messages, each with the message that announces it.
pub(crate) fn programs(messages: &str) -> impl Iterator<Item = (Value, PathBuf)> {
    messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?.into();
        Some((message, path))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The crates that a package is built from, each with its features.
    fn built(package: &str) -> BTreeMap<String, String> {
        let output = Command::new("cargo")
            .args(["tree", "--locked", "--edges=normal,build", "--prefix=none"])
            .args(["--format={p}: {f}", "--package", package])
            .current_dir(tree::root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| line.trim_end_matches(" (*)"));
        lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, features)| (name.to_owned(), features.to_owned()))
            .collect()
    }

    /// Cargo builds a crate once for two programs where both want the same features of it; else the
    /// first `cargo xtask pretrain` waits for xtask's own copies before the program's build begins.
    #[test]
    fn what_xtask_and_pretrain_both_need_is_built_once() {
        let (ours, theirs) = (built("xtask"), built("moco-pretrain"));
        let twice: Vec<String> = ours
            .iter()
            .filter_map(|(name, features)| Some((name, features, theirs.get(name)?)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .map(|(name, ours, theirs)| format!("{name}: xtask {ours}; pretrain {theirs}"))
            .collect();
        assert!(ours.len() > 20 && theirs.len() > 150, "{} {}", ours.len(), theirs.len());
        assert_eq!(twice, Vec::<String>::new(), "xtask/Cargo.toml has to name these features");
    }

    #[test]
    fn the_binary_is_found_among_the_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"step","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"knn","kind":["bin"]},"executable":"target/release/knn"}
{"reason":"compiler-artifact","target":{"name":"step","kind":["bin"]},"executable":"elsewhere/step"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "step"), Some(PathBuf::from("elsewhere/step")));
        assert_eq!(executable(messages, "pretrain"), None);
    }
}
