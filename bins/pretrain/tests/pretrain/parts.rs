//! Other networks than ResNets, other optimizers than SGD and another mechanism than the queue, from a config to
//! a resumed run.

use crate::common::{Bench, text};

/// Overrides that make the run's network a small vision transformer.
const VIT: [&str; 5] = [
    "encoder.arch=vit",
    "encoder.patch_size=4",
    "encoder.embed_dim=24",
    "encoder.depth=2",
    "encoder.n_heads=3",
];

fn with<'a>(arguments: &[&'a str], sets: &[&'a str]) -> Vec<&'a str> {
    let sets = sets.iter().flat_map(|&set| ["--set", set]);
    arguments.iter().copied().chain(sets).collect()
}

/// A run with these overrides ends with the same bits, whether it was stopped and resumed or not, and names of
/// its state are among them.
#[track_caller]
fn check_resumed(sets: &[&str], names: &[&str]) {
    let bench = Bench::new();
    bench.finish(&with(&["tiny.toml", "--name", "whole"], sets));
    let (step, whole) = bench.state("whole");
    assert_eq!(step, 40);
    for name in names {
        assert!(whole.iter().any(|(other, _)| other == name), "{name} is no part of the state");
    }
    let start = with(&["tiny.toml", "--name", "killed", "--set", "data.decoders=2"], sets);
    let mut child = bench.start_until(&start, "killed", 17);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(bench.state("killed").0 < 40, "it was killed before its end");
    bench.finish(&["--resume", "killed"]);
    assert!(bench.state("killed") == (40, whole));
    // Another network or optimizer would not be the same run.
    let output = bench.run(&["--resume", "killed", "--set", "encoder.arch=resnet18"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn a_vision_transformer_trains_and_resumes_with_the_same_bits() {
    check_resumed(
        &VIT,
        &["encoder_q.cls_token", "encoder_k.norm.weight", "sgd.blocks.1.attn.qkv.weight"],
    );
}

#[test]
fn the_end_to_end_mechanism_trains_and_resumes_with_the_same_bits() {
    check_resumed(
        &["moco.mechanism=end_to_end"],
        &["encoder_k.conv1.weight", "sgd.conv1.weight", "sgd_k.fc.2.weight"],
    );
}

const LARS: [&str; 4] =
    ["optim.kind=lars", "optim.base_lr=40", "optim.weight_decay=1e-6", "optim.warmup_epochs=1"];

#[test]
fn lars_with_a_warm_up_trains_and_resumes_with_the_same_bits() {
    check_resumed(&LARS, &["lars.conv1.weight", "lars.bn1.bias", "lars.fc.2.weight"]);
}

#[test]
fn bits_of_lars_do_not_depend_on_the_number_of_threads() {
    let bench = Bench::new();
    for threads in ["1", "3"] {
        let mut command = bench.command(&with(&["tiny.toml", "--name", threads], &LARS));
        let output = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert!(bench.state("1") == bench.state("3"));
    // The rate rises over the 12 steps of the first epoch: 40·16/256 at its end.
    let metrics = std::fs::read_to_string(bench.path("runs/1/metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str(line).unwrap());
    let rates: Vec<f64> = lines.filter_map(|line: serde_json::Value| line["lr"].as_f64()).collect();
    for (step, rate) in rates.iter().take(12).enumerate() {
        let expected = 2.5 * (step + 1) as f64 / 12.0;
        assert!((rate - expected).abs() < 1e-12, "{step}: {rate} {expected}");
    }
    assert!(rates.len() == 40 && rates[39] < 0.1, "{rates:?}");
}
