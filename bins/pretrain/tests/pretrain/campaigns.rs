//! The long forms (`cargo xtask ci --long`): hundreds of kills and thousands of damaged checkpoints, each followed
//! by a resume whose result is compared bit by bit. The counts are in docs/results.md.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use moco_rng::{At, Purpose, Seed, Stream};

use crate::common::{Bench, text};

/// Kills with SIGKILL, and how many of them at least must hit a save.
const KILLS: usize = 200;
const KILLS_IN_A_SAVE: usize = 50;
/// Kills of one run before it is left to end.
const KILLS_OF_A_RUN: usize = 10;
/// Damaged states that are resumed.
const DAMAGES: usize = 2000;

/// Saves each second step, so that a kill finds one often.
const OFTEN: [&str; 4] =
    ["--set", "checkpoint.every_steps=2", "--set", "monitor.knn_every_steps=0"];

fn names(folder: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether a save is under way, or was when the process ended.
fn is_saving(bench: &Bench, run: &str) -> bool {
    let names = names(bench.path(&format!("runs/{run}/checkpoints")));
    names.iter().any(|name| name.starts_with(".tmp-"))
}

/// Starts or resumes a run and kills it: in a save, or at a random moment. False if it ended before.
fn kill_once(bench: &Bench, run: &str, arguments: &[&str], stream: &mut Stream) -> bool {
    let aims_at_a_save = stream.below(2) == 0;
    let (skipped_saves, moment) = (stream.below(12), Duration::from_micros(stream.below(900_000)));
    let mut child = bench.command(arguments).spawn().unwrap();
    let since = Instant::now();
    let (mut n_saves, mut was_saving) = (0, false);
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let saves = is_saving(bench, run);
        n_saves += u64::from(saves && !was_saving);
        was_saving = saves;
        let is_due = if aims_at_a_save {
            saves && n_saves > skipped_saves
        } else {
            since.elapsed() >= moment
        };
        if is_due {
            break;
        }
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

#[test]
fn hundreds_of_kills_change_no_bit() {
    let bench = Bench::new();
    bench.finish(&[&["tiny.toml", "--name", "whole"][..], &OFTEN].concat());
    let whole = bench.state("whole");
    let mut stream = Seed(16).stream(Purpose::Augment, At::default());
    let (mut n_kills, mut n_in_a_save, mut n_before_a_save, mut n_runs) = (0, 0, 0, 0);
    while n_kills < KILLS || n_in_a_save < KILLS_IN_A_SAVE {
        let name = format!("killed-{n_runs}");
        let start = [&["tiny.toml", "--name", &name][..], &OFTEN].concat();
        let resume = ["--resume", &name];
        let is_saved = || {
            let checkpoints = names(bench.path(&format!("runs/{name}/checkpoints")));
            checkpoints.iter().any(|name| name.starts_with("step-"))
        };
        for _ in 0..KILLS_OF_A_RUN {
            let arguments = if is_saved() { &resume[..] } else { &start[..] };
            if !kill_once(&bench, &name, arguments, &mut stream) {
                break;
            }
            n_kills += 1;
            n_in_a_save += usize::from(is_saving(&bench, &name));
            n_before_a_save += usize::from(!is_saved());
        }
        bench.finish(if is_saved() { &resume[..] } else { &start[..] });
        assert!(bench.state(&name) == whole, "{name} after {n_kills} kills");
        assert_eq!(bench.steps(&name), (1..=40).collect::<Vec<u64>>(), "{name}");
        n_runs += 1;
        std::fs::remove_dir_all(bench.path(&format!("runs/{name}"))).unwrap();
    }
    println!(
        "{n_kills} kills of {n_runs} runs, {n_in_a_save} within a save, {n_before_a_save} before the first \
         was committed: each run ended with the bits of the uninterrupted one"
    );
}

/// The steps of the checkpoints of a sound run.
const STEPS: [u64; 3] = [4, 8, 12];

fn file(step: u64) -> String {
    format!("runs/a/checkpoints/step-{step:010}.safetensors")
}

/// What is done to a checkpoint.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip,
    Cut,
    Append,
    ZeroPage,
    SwapPages,
    Splice,
    OtherStep,
    OtherRun,
}

const ALL: [Damage; 8] = [
    Damage::Flip,
    Damage::Cut,
    Damage::Append,
    Damage::ZeroPage,
    Damage::SwapPages,
    Damage::Splice,
    Damage::OtherStep,
    Damage::OtherRun,
];

/// The checkpoints of the run and of another run with another seed, in the order of [`STEPS`].
struct Sound {
    of_run: Vec<Vec<u8>>,
    of_other: Vec<Vec<u8>>,
}

fn index(stream: &mut Stream, n: usize) -> usize {
    usize::try_from(stream.below(n as u64)).unwrap()
}

/// The bytes of checkpoint `which` after a damage, which are not those before it.
fn damaged(damage: Damage, which: usize, sound: &Sound, stream: &mut Stream) -> Vec<u8> {
    let before = &sound.of_run[which];
    loop {
        let (mut bytes, n) = (before.clone(), before.len());
        match damage {
            Damage::Flip => {
                for _ in 0..=stream.below(3) {
                    bytes[index(stream, n)] ^= 1 << stream.below(8);
                }
            }
            Damage::Cut => bytes.truncate(index(stream, n)),
            Damage::Append => bytes.extend(vec![0; 1 + index(stream, 4096)]),
            Damage::ZeroPage => {
                let start = index(stream, n.div_ceil(4096)) * 4096;
                bytes[start..n.min(start + 4096)].fill(0);
            }
            Damage::SwapPages => {
                let [a, b] = [(); 2].map(|()| index(stream, n / 512) * 512);
                for at in 0..512 {
                    bytes.swap(a + at, b + at);
                }
            }
            Damage::Splice => {
                let other = &sound.of_run[(which + 1 + index(stream, 2)) % 3];
                let at = index(stream, n.min(other.len()));
                bytes.truncate(at);
                bytes.extend(&other[at..]);
            }
            Damage::OtherStep => {
                bytes.clone_from(&sound.of_run[(which + 1 + index(stream, 2)) % 3]);
            }
            Damage::OtherRun => bytes.clone_from(&sound.of_other[which]),
        }
        if bytes != *before {
            return bytes;
        }
    }
}

#[test]
fn thousands_of_damaged_checkpoints_are_refused_or_passed_over() {
    let bench = Bench::new();
    let sets = ["run.steps=12", "checkpoint.every_steps=4", "monitor.knn_every_steps=0"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    bench.finish(&[&["tiny.toml", "--name", "a"][..], &sets].concat());
    let whole = bench.state("a");
    let folder = |run: &str| bench.path(&format!("runs/{run}"));
    let checkpoints = || STEPS.map(|step| std::fs::read(bench.path(&file(step))).unwrap()).to_vec();
    let of_run = checkpoints();
    std::fs::rename(folder("a"), folder("kept")).unwrap();
    bench.finish(&[&["tiny.toml", "--name", "a", "--set", "run.seed=9"][..], &sets].concat());
    let sound = Sound { of_run, of_other: checkpoints() };
    std::fs::remove_dir_all(folder("a")).unwrap();
    std::fs::rename(folder("kept"), folder("a")).unwrap();

    let metrics = std::fs::read(bench.path("runs/a/metrics.jsonl")).unwrap();
    let mut stream = Seed(17).stream(Purpose::Augment, At::default());
    let (mut n_refused, mut n_passed_over) = (0, 0);
    for trial in 0..DAMAGES {
        let damage = ALL[trial % ALL.len()];
        // The newest one, the two newest, or all.
        let n_damaged = 1 + index(&mut stream, 3);
        for (which, step) in STEPS.iter().enumerate() {
            let is_damaged = which >= STEPS.len() - n_damaged;
            let bytes = if is_damaged {
                damaged(damage, which, &sound, &mut stream)
            } else {
                sound.of_run[which].clone()
            };
            std::fs::write(bench.path(&file(*step)), bytes).unwrap();
        }
        std::fs::write(bench.path("runs/a/metrics.jsonl"), &metrics).unwrap();
        drop(std::fs::remove_file(bench.path("runs/a/summary.json")));
        let output = bench.run(&["--resume", "a"]);
        let (code, stderr) = (output.status.code(), text(&output.stderr));
        let what = format!("trial {trial}, {damage:?} of {n_damaged}: {code:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{what}");
        if let Damage::OtherRun = damage {
            assert!(code == Some(2) && stderr.contains("run id: "), "{what}");
            n_refused += 1;
        } else if n_damaged == STEPS.len() {
            assert!(
                code == Some(3) && stderr.contains("error: no usable checkpoint in "),
                "{what}"
            );
            n_refused += 1;
        } else {
            assert_eq!(code, Some(0), "{what}");
            assert_eq!(stderr.matches(" was passed over: ").count(), n_damaged, "{what}");
            assert!(bench.state("a") == whole, "{what}");
            n_passed_over += 1;
        }
    }
    assert_eq!(n_refused + n_passed_over, DAMAGES);
    println!(
        "{DAMAGES} damaged states resumed: {n_refused} refused, {n_passed_over} continued from an older \
         checkpoint to the same bits, none accepted, no panic"
    );
}
