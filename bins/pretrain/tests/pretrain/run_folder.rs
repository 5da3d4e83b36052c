//! The files and the output of a finished run.

use crate::common::{Bench, text};

#[test]
fn a_run_leaves_its_folder_and_prints_a_table() {
    let bench = Bench::new();
    let output = bench.run(&["tiny.toml", "--name", "all", "--set", "evaluate.at_end=true"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "no escape bytes");
    for row in ["raw pixels", "random encoder", "trained encoder", "5 neighbors, temperature 0.1"] {
        assert!(stdout.contains(row), "{stdout}");
    }
    let file = |name: &str| std::fs::read_to_string(bench.path("runs/all").join(name)).unwrap();
    // Of a log line each step, the first and the last are shown.
    let shown: Vec<&str> =
        stderr.lines().filter_map(|line| Some(line.split_once("/40  loss ")?.0)).collect();
    assert_eq!((shown.first(), shown.last()), (Some(&"1"), Some(&"40")), "{stderr}");
    let phase = "phase  filling the queue (40 %): the loss rises, top-1 falls, as they should\n";
    assert!(stderr.contains(phase), "{stderr}");
    let summary: serde_json::Value = serde_json::from_str(&file("summary.json")).unwrap();
    for measure in ["knn", "linear"] {
        for who in ["pixels", "random", "trained"] {
            let accuracy = summary[measure][who].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&accuracy), "{measure} {who}: {accuracy}");
        }
    }
    assert_eq!(summary["steps"], 40);
    assert!(summary["images_per_second"].as_f64().unwrap() > 1.0);
    assert!(summary["wall_seconds"].as_f64().unwrap() > 0.0);
    assert!(summary["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    let checkpoint = summary["final_checkpoint"].as_str().unwrap();
    assert!(bench.path("runs/all").join(checkpoint).exists(), "{checkpoint}");
    let kept = std::fs::read_dir(bench.path("runs/all/checkpoints")).unwrap().count();
    assert_eq!(kept, 3, "checkpoint.keep");

    let lines: Vec<serde_json::Value> =
        file("metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&serde_json::Value> =
        lines.iter().filter(|line| line["loss"].is_number()).collect();
    assert_eq!(steps.len(), 40);
    for (i, line) in steps.iter().enumerate() {
        assert_eq!(line["step"], i as u64 + 1);
        assert_eq!(line["epoch"], i as u64 / 12);
        assert!(line["lr"].as_f64().unwrap() > 0.0 && line["images_per_second"].is_number());
        let filled = ((i as u64 + 1) * 16 * 100 / 40).min(100);
        assert_eq!(line["queue_filled_percent"], filled);
    }
    let first_lr = steps[0]["lr"].as_f64().unwrap();
    assert!((first_lr - 0.5 * 16.0 / 256.0).abs() < 1e-12, "base_lr is per 256 images: {first_lr}");
    assert!(lines.iter().any(|line| line["step"] == 20 && line["knn"].is_number()), "the monitor");
    let stages = ["sample", "read", "deal", "decode", "batch", "upload", "consumer"];
    for stage in stages {
        assert!(lines.iter().any(|line| line["stage"] == stage), "{stage} is metered");
    }
    let log = file("run.log");
    assert!(log.contains("bottleneck") && log.contains("step 20: kNN"), "{log}");
    assert!(!log.contains("DEBUG"), "{log}");
    // The table of accuracies is in the log as it was printed.
    let logged: Vec<&str> =
        log.lines().filter_map(|line| line.split_once(" INFO ")).map(|(_, text)| text).collect();
    let table: Vec<&str> =
        stdout.lines().filter(|line| !line.is_empty() && !line.starts_with("run folder")).collect();
    assert_eq!(table.len(), 6, "{stdout}");
    assert!(logged.ends_with(&table), "{log}");

    // The resolved config loads again and gives the same run.
    bench.finish(&["runs/all/config.toml", "--name", "again"]);
    assert!(bench.state("again") == bench.state("all"));
    let again = std::fs::read_to_string(bench.path("runs/again/config.toml")).unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&file("config.toml")));
}

/// Looks at each step, with experiments on batch norm's groups, and none but at the first and the last step.
#[test]
fn a_run_that_is_looked_at_has_the_same_bits() {
    let bench = Bench::new();
    let run = |name: &str, every_steps: &str| {
        let sets = ["--set", "moco.shuffle_bn=false", "--set", every_steps];
        let output = bench.run(&[&["tiny.toml", "--name", name][..], &sets[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (bench.state(name), text(&output.stderr))
    };
    let (looked_at, stderr) = run("looked-at", "log.every_steps=1");
    let (not_looked_at, _) = run("not-looked-at", "log.every_steps=0");
    assert!(looked_at == not_looked_at);
    let lines = std::fs::read_to_string(bench.path("runs/looked-at/metrics.jsonl")).unwrap();
    assert!(lines.matches("top1_in_other_groups").count() >= 9, "one look in four: {lines}");
    let alarm = "alarm  start: batch norm has 2 groups, no shuffled keys\n       \
                 set moco.shuffle_bn = true, unless this is the control of v1 A.9\n";
    assert!(stderr.contains(alarm), "{stderr}");
}

#[test]
fn rust_log_chooses_what_standard_error_shows() {
    let bench = Bench::new();
    let run = |filter: &str, name: &str| {
        let sets = ["--set", "run.steps=2", "--set", "schedule.kind=constant"];
        let mut command = bench.command(&[&["tiny.toml", "--name", name], &sets[..]].concat());
        let output = command.env("RUST_LOG", filter).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, stderr) = run("info,moco_pipeline=debug", "debug");
    assert_eq!(code, Some(0), "{stderr}");
    for part in [
        "  INFO moco_cli::console: run    runs/debug  seed 3\n",
        "  INFO moco_train::event: plan   2 steps of 12 an epoch on 200 images, ",
        "  INFO moco_train::event: 2/2  loss ",
        " DEBUG stage{name=\"decode-0\"}: moco_pipeline::crew: started\n",
        " DEBUG stage{name=\"checkpoint\"}: moco_pipeline::sink: processed everything\n",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    // The log says what the console would have said.
    let unmarked =
        stderr.lines().filter(|line| !line.contains(" INFO ") && !line.contains(" DEBUG "));
    assert_eq!(unmarked.collect::<Vec<_>>(), Vec::<&str>::new());
    let log = std::fs::read_to_string(bench.path("runs/debug/run.log")).unwrap();
    assert!(log.contains(" DEBUG stage{name=\"decode-0\"}: started\n"), "{log}");

    assert_eq!(run("off", "quiet"), (Some(0), String::new()));
    let log = std::fs::read_to_string(bench.path("runs/quiet/run.log")).unwrap();
    assert!(log.contains("  INFO 2/2  loss "), "a filter takes nothing from the run's log: {log}");

    let refused = "error: RUST_LOG: bad log filter `moco=loud`: error parsing level filter: expected one of \
                   \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5 (try `info` or \
                   `info,moco_ingest=debug`)\n";
    assert_eq!(run("moco=loud", "refused"), (Some(2), refused.to_owned()));
}

#[test]
fn the_key_encoder_follows_only_with_its_parameters() {
    let bench = Bench::new();
    // m = 1: the key encoder's parameters never move; its running statistics come from its own batches.
    bench.finish(&["tiny.toml", "--name", "m1", "--set", "moco.key_momentum=1"]);
    let (_, state) = bench.state("m1");
    let get = |name: &str| &state.iter().find(|(n, _)| n == name).unwrap().1;
    let initial = {
        bench.finish(&[
            "tiny.toml",
            "--name",
            "start",
            "--set",
            "moco.key_momentum=1",
            "--set",
            "run.steps=1",
        ]);
        bench.state("start").1
    };
    for (name, bytes) in &initial {
        if let Some(rest) = name.strip_prefix("encoder_k.") {
            let is_buffer = rest.contains("running_") || rest.contains("num_batches");
            assert_eq!(get(name) != bytes, is_buffer, "{name}");
            if is_buffer && !rest.contains("num_batches") {
                assert_ne!(get(name), get(&format!("encoder_q.{rest}")), "{name} is its own");
            }
        }
    }
}

#[test]
fn print_config_tells_origins_and_writes_nothing() {
    let bench = Bench::new();
    let output = bench.run(&["tiny.toml", "--print-config", "--set", "run.seed=9"]);
    let stdout = text(&output.stdout);
    assert!(output.status.success() && stdout.contains("seed = 9"), "{stdout}");
    assert!(stdout.contains("--set") && stdout.contains("tiny.toml"), "{stdout}");
    assert!(!bench.path("runs").exists());
}

#[test]
fn help_teaches() {
    let bench = Bench::new();
    let help = text(&bench.run(&["--help"]).stdout);
    for part in ["--resume", "--set", "Examples:", "Exit codes:", "Ctrl-C"] {
        assert!(help.contains(part), "{help}");
    }
}
