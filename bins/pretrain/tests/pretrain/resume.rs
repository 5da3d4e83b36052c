//! Killed, interrupted or moved to another number of workers: the result has the same bits.

use crate::common::{Bench, text};
use moco_rng::{At, Purpose, Seed};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// Kill points of a run with one worker and of one with two.
const KILLS: usize = 12;

fn send(child: &std::process::Child, signal: i32) {
    let arguments = [format!("-{signal}"), child.id().to_string()];
    // A process that has just ended shows so by its exit code.
    std::process::Command::new("kill").args(arguments).output().unwrap();
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bits() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "whole"]);
    let whole = bench.state("whole");
    assert_eq!(whole.0, 40);
    let mut stream = Seed(17).stream(Purpose::Augment, At::default());
    for workers in ["1", "2"] {
        for kill in 0..KILLS {
            let name = format!("killed-{workers}-{kill}");
            let decoders = format!("data.decoders={workers}");
            // From step 10 on, a checkpoint is durable: the writer takes the second when the first is.
            let step = 11 + stream.below(28);
            let start = ["tiny.toml", "--name", &name, "--set", &decoders];
            let mut child = bench.start_until(&start, &name, step);
            // A random part of a step or a save later: some kills hit a write.
            let spin = std::time::Duration::from_micros(stream.below(20_000));
            let since = std::time::Instant::now();
            while since.elapsed() < spin {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let (saved, _) = bench.state(&name);
            // The line of a step is in the file before the step is saved.
            assert!(saved + 10 >= step && saved <= 40, "{name}: step {step}, saved {saved}");
            bench.finish(&["--resume", &name]);
            let resumed = bench.state(&name);
            assert_eq!(resumed.0, whole.0, "{name}");
            let same = resumed.1.iter().zip(&whole.1).all(|(a, b)| a == b);
            assert!(same && resumed.1.len() == whole.1.len(), "{name}, killed after step {step}");
            let steps = bench.steps(&name);
            assert_eq!(steps, (1..=40).collect::<Vec<u64>>(), "{name}: each step is logged once");
        }
    }
}

#[test]
fn the_number_of_workers_and_the_seed() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "one"]);
    let sets = ["--set", "data.decoders=3", "--set", "data.readers=2"];
    bench.finish(&[&["tiny.toml", "--name", "three"][..], &sets[..]].concat());
    assert!(bench.state("one") == bench.state("three"), "workers change nothing");
    bench.finish(&["tiny.toml", "--name", "seed", "--set", "run.seed=4"]);
    assert!(bench.state("one") != bench.state("seed"), "the seed changes everything");
}

#[test]
fn signals_save_and_exit_75_and_the_run_goes_on() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "whole"]);
    for (signal, name) in [(SIGINT, "int"), (SIGTERM, "term"), (SIGUSR1, "usr1")] {
        let long = ["tiny.toml", "--name", name, "--set", "checkpoint.every_steps=1000"];
        let child = bench.start_until(&long, name, 8);
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{name}: {stderr}");
        assert!(stderr.contains(&format!("cargo xtask pretrain --resume {name}")), "{stderr}");
        let (step, _) = bench.state(name);
        assert_eq!(bench.steps(name).last(), Some(&step), "the step was finished and saved");
        bench.finish(&["--resume", name]);
        assert!(bench.state(name) == bench.state("whole"), "{name}");
    }
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let bench = Bench::new();
    // Steps that take long: the first signal waits for the end of one.
    let slow = ["encoder.width=0.5", "optim.batch_size=160", "moco.queue_size=320"];
    let mut arguments = vec!["tiny.toml", "--name", "twice"];
    for set in &slow {
        arguments.extend(["--set", set]);
    }
    let mut child = bench.start_until(&arguments, "twice", 1);
    // Two signals at once may arrive as one, so it is sent until the program has left.
    while child.try_wait().unwrap().is_none() {
        send(&child, SIGINT);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let bench = Bench::new();
    bench.finish(&["tiny.toml", "--name", "done"]);
    let before = bench.state("done");
    bench.finish(&["--resume", "done"]);
    assert!(bench.state("done") == before);
    assert_eq!(bench.steps("done").len(), 40);
}
