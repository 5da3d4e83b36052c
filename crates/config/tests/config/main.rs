//! Configs from files, as a user writes them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod choices;
mod committed;
mod messages;
mod resolved;

use std::path::{Path, PathBuf};

use moco_config::{ConfigError, LoadedPretrain, load_pretrain};

/// A config of the repository.
fn config_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pretrain").join(name)
}

/// A config that stays as it is while the repository's are tuned.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/fixture.toml")
}

fn load(name: &str, sets: &[&str]) -> Result<LoadedPretrain, ConfigError> {
    load_path(&config_path(name), sets)
}

fn load_fixture(sets: &[&str]) -> Result<LoadedPretrain, ConfigError> {
    load_path(&fixture(), sets)
}

fn load_path(path: &Path, sets: &[&str]) -> Result<LoadedPretrain, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    load_pretrain(path, &sets)
}

/// Plans have no equality of their own; their debug text holds each field.
fn meaning(loaded: &LoadedPretrain) -> String {
    let LoadedPretrain { plan, data, recipe, fidelity, resolved: _ } = loaded;
    format!("{plan:?}\n{data:?}\n{recipe:?}\n{fidelity:?}")
}
