//! Runs that are made longer, and runs that begin with the encoders of another.

use std::path::Path;

use moco_checkpoint::{Checkpoint, newest_valid};

use crate::common::{Bench, text};

fn newest(bench: &Bench, name: &str) -> Checkpoint {
    newest_valid(&bench.path(&format!("runs/{name}/checkpoints"))).unwrap().checkpoint
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The learning rates of the steps.
fn rates(bench: &Bench, name: &str) -> Vec<f64> {
    let lines = std::fs::read_to_string(bench.path(&format!("runs/{name}/metrics.jsonl"))).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["lr"].as_f64()).collect()
}

/// A run of the small config, whose encoder collapses where it trains for long, which is none of this file's
/// business.
#[track_caller]
fn run(bench: &Bench, name: &str, sets: &[&str]) {
    let sets = sets.iter().chain(&["health.stop_on_collapse=false"]).flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["tiny.toml", "--name", name].into_iter().chain(sets).collect();
    bench.finish(&arguments);
}

#[track_caller]
fn stderr_of(bench: &Bench, arguments: &[&str], code: i32) -> String {
    let output = bench.run(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    stderr
}

/// cosine_per_step: base_lr 0.5 for 256, batches of 16.
fn cosine(step: u32, total: u32) -> f64 {
    let angle = std::f64::consts::PI * f64::from(step) / f64::from(total);
    0.5 * 16.0 / 256.0 * 0.5 * (1.0 + angle.cos())
}

#[test]
fn a_finished_run_is_made_longer_and_remembers_it() {
    let bench = Bench::new();
    run(&bench, "a", &[]);
    let stderr = stderr_of(&bench, &["--resume", "a", "--extend", "60"], 0);
    let expected = format!(
        "extend 40 steps become 60: the schedule is computed over the new total, and the learning rate \
         jumps from {:.6} at step 40 to {:.6} at the next\n",
        cosine(39, 40),
        cosine(40, 60),
    );
    assert!(stderr.contains(&expected), "{stderr}");
    assert_eq!(bench.steps("a"), (1..=60).collect::<Vec<u64>>());
    for (i, rate) in (0..60).zip(rates(&bench, "a")) {
        let expected = cosine(i, if i < 40 { 40 } else { 60 });
        assert!((rate - expected).abs() < 1e-12, "step {i}: {rate} instead of {expected}");
    }
    // The run's config has the new length, the summary of the old one is kept, and both know.
    let config = std::fs::read_to_string(bench.path("runs/a/config.toml")).unwrap();
    assert!(config.contains("\nsteps = 60  # --set\n"), "{config}");
    let expected = serde_json::json!([{"at_step": 40, "from_steps": 40, "to_steps": 60}]);
    let summary = json(&bench.path("runs/a/summary.json"));
    assert_eq!((&summary["steps"], &summary["extensions"]), (&60.into(), &expected));
    assert_eq!(json(&bench.path("runs/a/summary-40-steps.json"))["steps"], 40);
    let checkpoint = newest(&bench, "a");
    assert_eq!(checkpoint.global_step, 60);
    assert_eq!(checkpoint.metadata["config"], config);
    assert_eq!(checkpoint.metadata["extensions"], expected.to_string());

    for (steps, got) in [("60", 60), ("41", 41)] {
        let stderr = stderr_of(&bench, &["--resume", "a", "--extend", steps], 2);
        let expected =
            format!("error: runs/a is 60 steps long; --extend must be more, got {got}\n");
        assert!(stderr.ends_with(&expected), "{stderr}");
    }
    for flags in [
        &["--extend", "60"][..],
        &["--restore-config"],
        &["--accept-changed-data"],
        &["--accept-foreign-checkpoint"],
    ] {
        let stderr = stderr_of(&bench, &[&["tiny.toml"], flags].concat(), 2);
        let expected = format!("error: {} needs --resume <RUN>\n", flags[0]);
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
    let stderr = stderr_of(&bench, &["--resume", "a", "--set", "run.steps=80"], 2);
    assert!(stderr.contains("--extend STEPS makes a run longer"), "{stderr}");
}

#[test]
fn an_extension_is_durable_before_its_first_step_and_a_kill_changes_no_bit() {
    let bench = Bench::new();
    run(&bench, "whole", &[]);
    run(&bench, "cut", &[]);
    stderr_of(&bench, &["--resume", "whole", "--extend", "60"], 0);
    let arguments = ["--resume", "cut", "--extend", "60"];
    // Killed before its next checkpoint, at step 45.
    let mut child = bench.start_until(&arguments, "cut", 41);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(newest(&bench, "cut").metadata["config"].contains("steps = 60"));
    stderr_of(&bench, &["--resume", "cut"], 0);
    assert!(bench.state("cut") == bench.state("whole"));
    // A crash between the checkpoint and config.toml leaves none.
    std::fs::remove_file(bench.path("runs/cut/config.toml")).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "cut"], 0);
    assert!(stderr.contains("it was restored from step-0000000060.safetensors"), "{stderr}");
    // From a checkpoint before the extension, the extension is asked for again.
    for step in [45, 50, 55, 60] {
        let file = format!("runs/whole/checkpoints/step-{step:010}.safetensors");
        drop(std::fs::remove_file(bench.path(&file)));
    }
    run(&bench, "short", &[]);
    let file = "checkpoints/step-0000000040.safetensors";
    let id = std::fs::read_to_string(bench.path("runs/short/run_id")).unwrap();
    std::fs::write(bench.path("runs/whole/run_id"), id).unwrap();
    let (from, to) = (bench.path("runs/short").join(file), bench.path("runs/whole").join(file));
    std::fs::copy(from, to).unwrap();
    let stderr = stderr_of(&bench, &["--resume", "whole"], 2);
    assert!(stderr.contains("\n  run.steps: 60 in the run, 40 in the checkpoint\n"), "{stderr}");
    stderr_of(&bench, &["--resume", "whole", "--extend", "60"], 0);
    assert!(bench.state("cut") == bench.state("whole"));
}

#[test]
fn a_run_of_epochs_is_extended_in_steps() {
    let bench = Bench::new();
    run(&bench, "a", &["run.epochs=2"]);
    let stderr = stderr_of(&bench, &["--resume", "a", "--extend", "24"], 2);
    assert!(stderr.contains("runs/a is 24 steps long"), "{stderr}");
    stderr_of(&bench, &["--resume", "a", "--extend", "30"], 0);
    assert_eq!(bench.state("a").0, 30);
    let config = std::fs::read_to_string(bench.path("runs/a/config.toml")).unwrap();
    assert!(!config.contains("epochs = 2") && config.contains("\nsteps = 30"), "{config}");
    stderr_of(&bench, &["--resume", "a"], 0);
}

#[test]
fn a_fork_takes_the_encoders_and_the_queue_and_nothing_else() {
    let bench = Bench::new();
    run(&bench, "first", &[]);
    let id = std::fs::read_to_string(bench.path("runs/first/run_id")).unwrap();
    let id = id.trim_end();
    // A rate of 0 and no momentum leave the encoders' parameters as they were.
    let sets =
        ["--set", "optim.base_lr=0", "--set", "run.steps=1", "--set", "optim.weight_decay=0"];
    let arguments = [&["--fork", "first", "--name", "second"][..], &sets[..]].concat();
    let stderr = stderr_of(&bench, &arguments, 0);
    let expected = format!(
        "fork   encoders and queue of step 40 of first ({id}); momentum buffers begin at zero\n"
    );
    assert!(stderr.contains(&expected), "{stderr}");
    let (step, child) = bench.state("second");
    assert_eq!(step, 1);
    let parent = bench.state("first").1;
    let get = |state: &[(String, Vec<u8>)], name: &str| {
        state.iter().find(|(other, _)| other == name).unwrap().1.clone()
    };
    let is_buffer = |name: &str| name.contains("running_") || name.contains("num_batches");
    let names = child.iter().map(|(name, _)| name.as_str());
    let parameters = names.filter(|name| name.starts_with("encoder_q.") && !is_buffer(name));
    let mut n_parameters = 0;
    for name in parameters {
        assert!(get(&child, name) == get(&parent, name), "{name}");
        n_parameters += 1;
    }
    assert!(n_parameters > 20, "{n_parameters}");
    // 16 keys were replaced of the queue of 40, beginning where the parent's pointer was.
    let ptr = |state| i64::from_le_bytes(get(state, "queue_ptr").try_into().unwrap());
    let (before, after) = (ptr(&parent), ptr(&child));
    assert_eq!((before + 16) % 40, after);
    let column = |state: &[(String, Vec<u8>)], k: usize| -> Vec<u8> {
        let bytes = get(state, "queue");
        (0..16).flat_map(|row| bytes[4 * (row * 40 + k)..][..4].to_vec()).collect()
    };
    for k in 0..40 {
        let is_new = (k + 40 - usize::try_from(before).unwrap()) % 40 < 16;
        assert_eq!(column(&child, k) != column(&parent, k), is_new, "column {k}");
    }
    // After one step from zero a momentum buffer is the gradient of that step only: another fork with
    // momentum 0 has the same ones.
    let sets = [&sets[..], &["--set", "optim.sgd_momentum=0"]].concat();
    stderr_of(&bench, &[&["--fork", "first", "--name", "third"][..], &sets].concat(), 0);
    assert!(bench.state("third").1 == child);

    let expected = serde_json::json!({"run": "first", "run_id": id, "step": 40});
    assert_eq!(newest(&bench, "second").metadata["parent"], expected.to_string());
    assert_eq!(json(&bench.path("runs/second/summary.json"))["parent"], expected);
    assert_ne!(newest(&bench, "second").metadata["run_id"], id);
}

#[test]
fn a_fork_resumes_with_the_same_bits_and_keeps_its_parent() {
    let bench = Bench::new();
    run(&bench, "first", &[]);
    bench.finish(&["--fork", "first", "--name", "whole", "--set", "moco.temperature=0.3"]);
    let start = ["--fork", "first", "--name", "killed", "--set", "moco.temperature=0.3"];
    let mut child = bench.start_until(&start, "killed", 17);
    child.kill().unwrap();
    child.wait().unwrap();
    bench.finish(&["--resume", "killed"]);
    assert!(bench.state("killed") == bench.state("whole"));
    let parent = |name| newest(&bench, name).metadata["parent"].clone();
    assert_eq!(parent("killed"), parent("whole"));
    assert!(bench.state("whole") != bench.state("first"));
    // Without a name it gets a number; a damaged checkpoint is passed over with a line.
    let newest = bench.path("runs/first/checkpoints/step-0000000040.safetensors");
    std::fs::write(&newest, "cut").unwrap();
    let stderr = stderr_of(&bench, &["--fork", "first", "--set", "run.steps=1"], 0);
    let expected = "warning: runs/first/checkpoints/step-0000000040.safetensors was passed over: ";
    assert!(
        stderr.starts_with(expected) && stderr.contains("queue of step 35 of first"),
        "{stderr}"
    );
    assert!(bench.path("runs/0001-first-fork").exists());
}

#[test]
fn forks_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    run(&bench, "first", &["run.steps=5"]);
    let keeps = "a fork keeps the network and the queue of its parent, so leave [encoder], \
                 moco.mechanism, moco.dim, moco.queue_size and moco.queue_precision as they were\n";
    for (set, reason) in [
        ("moco.queue_size=80", "`queue`"),
        ("encoder.arch=resnet18", "it has no `encoder_k.layer1.1.bn1.bias`"),
        ("moco.mechanism=end_to_end", "`queue` has no place"),
    ] {
        let arguments = ["--fork", "first", "--name", "x", "--set", set];
        let stderr = stderr_of(&bench, &arguments, 2);
        assert!(stderr.contains("error: step 5 of first does not fit this config: "), "{stderr}");
        assert!(stderr.contains(reason) && stderr.ends_with(keeps), "{set}: {stderr}");
        assert!(!bench.path("runs/x").exists());
    }
    let stderr = stderr_of(&bench, &["--fork", "frist"], 2);
    assert_eq!(stderr, "error: no run at runs/frist; runs there are: first\n");
    let stderr = stderr_of(&bench, &["tiny.toml", "--fork", "first"], 2);
    assert!(stderr.contains("cannot be used with"), "{stderr}");
}
