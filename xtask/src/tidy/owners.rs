//! Outside things and the crates that may know them, so that each is met in one place.

use super::Problem;
use super::layers::{Crates, is_program};

/// A dependency and its owners; "bins" stands for the programs of the top layer.
const OWNERS: &[(&str, &[&str])] = &[
    ("crossbeam-channel", &["moco-pipeline"]),
    ("rayon", &["moco-ops"]),
    ("rand_chacha", &["moco-rng"]),
    ("tar", &["moco-ingest"]),
    ("flate2", &["moco-ingest"]),
    ("miniz_oxide", &["moco-decode-campaign"]),
    ("object_store", &["moco-ingest"]),
    ("tokio", &["moco-ingest"]),
    ("candle-datasets", &["moco-datasets"]),
    ("tracing-subscriber", &["moco-telemetry"]),
    // Of what logs, there is only tracing.
    ("log", &["tracing"]),
    ("env_logger", &["tracing"]),
    ("indicatif", &["moco-cli"]),
    ("signal-hook", &["moco-cli"]),
    ("anyhow", &["moco-cli", "moco-example-swap", "moco-tests", "xtask", "bins"]),
];

/// Crates that depend on what another crate is there for.
pub(super) fn check(crates: &Crates) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, used) in crates {
        for (thing, owners) in OWNERS.iter().filter(|(thing, _)| used.contains(*thing)) {
            let bin = owners.contains(&"bins") && is_program(name);
            if !bin && !owners.contains(&name.as_str()) {
                let text =
                    format!("depends on {thing}, which is the business of {}", owners.join(", "));
                problems.push(Problem::new(name, text));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outside_thing_is_met_by_its_owners_only() {
        for (name, used, expected) in [
            ("moco-train", "crossbeam-channel", Some("moco-pipeline")),
            ("moco-pipeline", "crossbeam-channel", None),
            ("moco", "anyhow", Some("moco-cli, moco-example-swap, moco-tests, xtask, bins")),
            ("moco-knn", "anyhow", None),
            ("moco-feed", "log", Some("tracing")),
            ("moco", "thiserror", None),
        ] {
            let crates = Crates::from([(name.into(), [used.into()].into())]);
            let found: Vec<String> = check(&crates).iter().map(Problem::to_string).collect();
            let expected = expected.map(|owners| {
                format!("{name}: depends on {used}, which is the business of {owners}")
            });
            assert_eq!(found, Vec::from_iter(expected));
        }
    }
}
