//! `cargo xtask bench data`: views a second of this workspace and of other loaders, in one run.
//!
//! Makes or reuses a Python environment and a set of photo-like JPEGs under `target/bench`, then lets all
//! take turns, so that a machine that slows down slows all of them down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::median::median;
use super::python;
use crate::tree;

const SCRIPTS: &str = "tests/bench/data";
const N_FILES: &str = "200";
/// `PyPI` has this one; it measures without a GPU.
const DALI: [&str; 2] = ["nvidia-dali-cuda120==2.4.0", "nvidia-nvimgcodec-cu12[all]"];
/// A build, and the flags of the compiler that make it.
const BUILDS: [(&str, &str); 2] = [("portable", ""), ("native", "-C target-cpu=native")];
const PEERS: [&str; 3] = ["pil", "v2", "dali"];

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Turns that each loader takes; the table shows the median
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..100))]
    rounds: u32,
}

/// Seconds for all files by case, and why a case has none.
#[derive(Debug, Default)]
struct Measured {
    images_per_sec: BTreeMap<String, Vec<f64>>,
    errors: BTreeMap<String, String>,
    stages: BTreeMap<String, Value>,
}

/// Measures, prints a table and writes `target/bench/data.json`.
pub(crate) fn run(args: &DataArgs) -> anyhow::Result<()> {
    let work = tree::root().join("target/bench");
    std::fs::create_dir_all(&work)?;
    let python = environment()?;
    let photos = photos(&work, &python)?;
    let binaries = BUILDS.map(|(name, flags)| build(&work, name, flags));
    let mut measured = Measured::default();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        for threads in ["1", "2"] {
            for peer in PEERS {
                let script = tree::root().join(SCRIPTS).join("peers.py");
                let mut command = Command::new(&python);
                command.arg(script).arg(&photos).args([peer, threads, "1"]);
                measured.take(&mut command, "")?;
            }
            for ((name, _), binary) in BUILDS.iter().zip(&binaries) {
                let binary = binary.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                measured.take(Command::new(binary).arg(&photos).args([threads, "1"]), name)?;
            }
        }
    }
    let rows = measured.rows();
    measured.print(&rows);
    let file = work.join("data.json");
    std::fs::write(&file, serde_json::to_string_pretty(&rows)?)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// The Python of the peers, with DALI where it installs.
fn environment() -> anyhow::Result<PathBuf> {
    let python = python::interpreter()?;
    let tried = python.with_file_name("dali-tried");
    if !tried.exists() {
        let dali = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(DALI)
            .status()?;
        if !dali.success() {
            eprintln!("DALI does not install; its rows stay empty");
        }
        std::fs::write(&tried, "")?;
    }
    Ok(python)
}

fn photos(work: &Path, python: &Path) -> anyhow::Result<PathBuf> {
    let folder = work.join("photos");
    if std::fs::read_dir(&folder).map_or(0, Iterator::count).to_string() != N_FILES {
        let script = tree::root().join(SCRIPTS).join("make_photos.py");
        check(Command::new(python).arg(script).arg(&folder).arg(N_FILES))?;
    }
    Ok(folder)
}

fn build(work: &Path, name: &str, flags: &str) -> anyhow::Result<PathBuf> {
    let target = work.join(name);
    check(
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--package", "moco-augment"])
            .args(["--example", "data_bench", "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", flags)
            .current_dir(tree::root()),
    )?;
    Ok(target.join("release/examples/data_bench"))
}

fn check(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

impl Measured {
    /// Runs a program that prints a line of JSON for each of its cases.
    fn take(&mut self, command: &mut Command, build: &str) -> anyhow::Result<()> {
        let output = command.stderr(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start {command:?}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            if let Some(name) = line["stages"].as_str() {
                self.stages.insert(format!("{name} {build}"), line["microseconds"].clone());
                continue;
            }
            let n_files = line["n_files"].as_f64().unwrap_or(0.0);
            let name = line["peer"].as_str().unwrap_or_default();
            let case = format!("{name} {build}").trim().to_owned();
            let case = format!("{case}, {} thread(s)", line["threads"]);
            if let Some(error) = line["error"].as_str() {
                self.errors.insert(case, error.into());
                continue;
            }
            let seconds =
                line["seconds"].as_array().into_iter().flatten().filter_map(Value::as_f64);
            let rates = seconds.map(|seconds| n_files / seconds);
            self.images_per_sec.entry(case).or_default().extend(rates);
        }
        Ok(())
    }

    /// Each case of ours against each peer with as many threads.
    fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for (case, rates) in &self.images_per_sec {
            let Some((name, threads)) = case.split_once(", ") else { continue };
            if PEERS.contains(&name) {
                continue;
            }
            for peer in PEERS {
                let Some(peers) = self.images_per_sec.get(&format!("{peer}, {threads}")) else {
                    continue;
                };
                let (ours, theirs) = (median(rates), median(peers));
                rows.push(json!({
                    "case": format!("{case} vs {peer}"), "ours": ours, "peer": theirs, "ratio": ours / theirs,
                }));
            }
        }
        rows
    }

    fn print(&self, rows: &[Value]) {
        println!("\nimages a second, two views each: median and all trials");
        for (case, rates) in &self.images_per_sec {
            let trials: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
            println!("{case:<34} {:>8.1}   {}", median(rates), trials.join(" "));
        }
        for (case, error) in &self.errors {
            println!("{case:<34} did not run: {error}");
        }
        println!("\nratios");
        for row in rows {
            println!(
                "{:<44} {:>6.2}",
                row["case"].as_str().unwrap_or_default(),
                row["ratio"].as_f64().unwrap_or(0.0)
            );
        }
        println!("\nmicroseconds an image of each stage, 1 thread");
        for (case, stages) in &self.stages {
            println!("{case:<16} {stages}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_compared_with_the_peer_of_as_many_threads() {
        let mut measured = Measured::default();
        for (case, rates) in [
            ("pil, 1 thread(s)", vec![90.0, 100.0, 110.0]),
            ("pil, 2 thread(s)", vec![200.0]),
            ("exact f32 native, 1 thread(s)", vec![450.0, 500.0, 400.0]),
        ] {
            measured.images_per_sec.insert(case.into(), rates);
        }
        let expected = json!([{
            "case": "exact f32 native, 1 thread(s) vs pil", "ours": 450.0, "peer": 100.0, "ratio": 4.5,
        }]);
        assert_eq!(json!(measured.rows()), expected);
    }
}
