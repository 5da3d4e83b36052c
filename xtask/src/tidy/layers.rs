//! The arrows between crates: only downward, never sideways, and candle only where tensors are.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Problem;
use crate::tree;

/// The layers, lowest first. A crate may depend on crates of lower layers only.
const LAYERS: [&[&str]; 8] = [
    &["moco-rng", "moco-pipeline", "moco-telemetry", "moco-checkpoint", "moco-jpeg"],
    &["moco-params", "moco-ops", "moco-ingest", "moco-augment", "moco-example-encoder"],
    &["moco-encoders", "moco-optim", "moco-textures", "moco-datasets"],
    &["moco", "moco-evaluate", "moco-feed"],
    &["moco-train"],
    &["moco-config"],
    &["moco-cli"],
    &[
        "moco-pretrain",
        "moco-make-data",
        "moco-lincls",
        "moco-knn",
        "moco-extract",
        "moco-step",
        "moco-bench",
        "moco-shard",
        "moco-preview",
        "moco-decode-campaign",
        "moco-example-swap",
        "moco-tests",
        "xtask",
    ],
];

/// Crates that neither use candle nor anything in the workspace that does, so that they build in
/// seconds.
const WITHOUT_CANDLE: [&str; 9] = [
    "moco-rng",
    "moco-pipeline",
    "moco-telemetry",
    "moco-checkpoint",
    "moco-jpeg",
    "moco-ingest",
    "moco-augment",
    "moco-textures",
    "moco-decode-campaign",
];

/// The names a crate depends on, dev-dependencies left out, by crate.
pub(super) type Crates = BTreeMap<String, BTreeSet<String>>;

/// Asks cargo for the crates of the workspace.
pub(super) fn workspace_crates() -> anyhow::Result<Crates> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(tree::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata fails");
    }
    parse(&serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")?)
}

fn parse(metadata: &Value) -> anyhow::Result<Crates> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let name =
        |value: &Value| value["name"].as_str().map(String::from).context("a name is missing");
    let mut crates = Crates::new();
    for package in packages {
        let all = package["dependencies"].as_array().context("dependencies are missing")?;
        let used = all.iter().filter(|dependency| dependency["kind"] != "dev").map(name);
        crates.insert(name(package)?, used.collect::<anyhow::Result<_>>()?);
    }
    Ok(crates)
}

/// Crates without a layer, arrows that do not point downward, candle where it must not be.
pub(super) fn check(crates: &Crates) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, used) in crates {
        let Some(layer) = layer(name) else {
            problems.push(Problem::new(name, "has no layer in xtask/src/tidy/layers.rs"));
            continue;
        };
        for other in used.iter().filter(|other| crates.contains_key(*other)) {
            // A crate without a layer is reported on its own.
            let Some(below) = self::layer(other) else { continue };
            if below >= layer {
                let text = format!("layer {layer} depends on {other} of layer {below}");
                problems.push(Problem::new(name, text));
            }
        }
    }
    for name in WITHOUT_CANDLE {
        if let Some(path) = path_to_candle(crates, name) {
            problems.push(Problem::new(name, format!("must not know candle: {path}")));
        }
    }
    problems
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Whether a crate is in the top layer, where the programs are.
pub(super) fn is_program(name: &str) -> bool {
    layer(name) == Some(LAYERS.len() - 1)
}

/// The first chain of dependencies from a crate to candle.
fn path_to_candle(crates: &Crates, name: &str) -> Option<String> {
    for used in crates.get(name)? {
        if used.starts_with("candle") {
            return Some(format!("{name} -> {used}"));
        }
        if let Some(rest) = path_to_candle(crates, used) {
            return Some(format!("{name} -> {rest}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(arrows: &[(&str, &[&str])]) -> Vec<String> {
        let set = |used: &[&str]| used.iter().map(|name| String::from(*name)).collect();
        let crates = arrows.iter().map(|(name, used)| (String::from(*name), set(used))).collect();
        check(&crates).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn arrows_point_downward_only() {
        let core = ("moco", &["moco-rng", "moco-encoders"][..]);
        let rest = [("moco-rng", &["libm"][..]), ("moco-encoders", &["moco-rng", "candle-core"])];
        assert_eq!(found(&[core, rest[0], rest[1]]), Vec::<String>::new());

        let upward = [("moco-rng", &["moco"][..]), ("moco", &[])];
        assert_eq!(found(&upward), ["moco-rng: layer 0 depends on moco of layer 3"]);

        let sideways = [("moco", &["moco-evaluate"][..]), ("moco-evaluate", &[])];
        assert_eq!(found(&sideways), ["moco: layer 3 depends on moco-evaluate of layer 3"]);
    }

    #[test]
    fn each_crate_has_a_layer() {
        let stray = [("moco-common", &[][..])];
        assert_eq!(found(&stray), ["moco-common: has no layer in xtask/src/tidy/layers.rs"]);
    }

    #[test]
    fn candle_is_found_behind_another_crate() {
        let arrows = [("moco-textures", &["moco-ingest"][..]), ("moco-ingest", &["candle-core"])];
        let expected = [
            "moco-ingest: must not know candle: moco-ingest -> candle-core",
            "moco-textures: must not know candle: moco-textures -> moco-ingest -> candle-core",
        ];
        assert_eq!(found(&arrows), expected);
    }

    #[test]
    fn dev_dependencies_do_not_count() {
        let metadata = json!({"packages": [{"name": "a", "dependencies": [
            {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}, {"name": "d", "kind": "build"}
        ]}]});
        let used: Vec<String> = parse(&metadata).unwrap()["a"].iter().cloned().collect();
        assert_eq!(used, ["b", "d"]);
    }

    #[test]
    fn the_table_names_existing_crates_only() {
        let crates = workspace_crates().unwrap();
        let named = LAYERS.iter().flat_map(|layer| layer.iter()).chain(&WITHOUT_CANDLE);
        let missing: Vec<_> = named.filter(|name| !crates.contains_key(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
