//! `cargo xtask bench step`: our training step and PyTorch's, and their parts.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::cases::{self, Case};
use super::median::median;
use super::python;
use super::side::Side;
use crate::{stage, tree};

/// Both sides take turns, so that whatever else the machine does hits both. Each number is the median
/// of the trials; PyTorch's is the better one of its two memory layouts. Results also go to
/// target/bench/step.json.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Timed runs of each case and side
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..))]
    trials: u16,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only cases that contain this text, for example `resnet18` or `conv 32`
    #[arg(long, default_value = "")]
    only: String,
}

/// The measurements of one side.
struct Times {
    name: &'static str,
    seconds: Vec<f64>,
    peak_bytes: u64,
}

impl Times {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let binary = stage::build("bench", &[])?;
    let interpreter = python::interpreter()?;
    let start = || sides(&binary, &interpreter, args.threads);
    // Before PyTorch starts, which takes both cores for seconds.
    let peak = measured_peak(&binary, args.threads)?;
    println!("peak of {} threads: {:.0} GFLOP/s\n", args.threads, peak / 1e9);
    let chosen = |cases: Vec<Case>| cases.into_iter().filter(|c| c.name.contains(&args.only));
    let mut results = Vec::new();
    print_head();
    for case in chosen(cases::steps()) {
        // New processes for each step: memory that another case took must not count.
        results.push(measure(&mut start()?, &case, args.trials, peak)?);
    }
    let mut of_ops = start()?;
    for case in chosen(cases::ops()) {
        results.push(measure(&mut of_ops, &case, args.trials, peak)?);
    }
    let path = tree::root().join("target/bench/step.json");
    let text = serde_json::to_string_pretty(&results)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("\nalso in {}", path.display());
    Ok(())
}

/// Ours first, then PyTorch with each layout.
fn sides(binary: &Path, interpreter: &Path, threads: usize) -> anyhow::Result<Vec<Side>> {
    let script = tree::root().join("xtask/src/bench/torch_side.py");
    let torch = |layout: &str| {
        let mut command = Command::new(interpreter);
        command.arg(&script).arg(threads.to_string()).arg(layout);
        command
    };
    Ok(vec![
        Side::start("ours", Command::new(binary), threads)?,
        Side::start("nchw", torch("nchw"), threads)?,
        Side::start("channels_last", torch("channels_last"), threads)?,
    ])
}

/// Operations a second at best.
fn measured_peak(binary: &Path, threads: usize) -> anyhow::Result<f64> {
    let mut ours = Side::start("ours", Command::new(binary), threads)?;
    let threads = u32::try_from(threads)?;
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        best = best.min(ours.seconds("peak")?);
    }
    Ok(f64::from(threads) * 1e9 / best)
}

fn measure(sides: &mut [Side], case: &Case, trials: u16, peak: f64) -> anyhow::Result<Value> {
    let mut times: Vec<Times> = sides
        .iter()
        .map(|side| Times { name: side.name(), seconds: Vec::new(), peak_bytes: 0 })
        .collect();
    for _ in 0..trials {
        for (side, times) in sides.iter_mut().zip(&mut times) {
            times.seconds.push(side.seconds(&case.name)?);
        }
    }
    for (side, times) in sides.iter_mut().zip(&mut times) {
        times.peak_bytes = side.peak_bytes()?;
    }
    let (ours, torch) = times.split_first().context("no sides")?;
    let best = torch.iter().min_by(|a, b| a.median().total_cmp(&b.median()));
    let best = best.context("no PyTorch")?;
    print_row(case, ours, best, peak);
    let giga = |times: &Times| case.operations / times.median() / 1e9;
    let is_step = case.name.starts_with("step");
    let mut result = json!({
        "case": case.name,
        "ours_s": ours.median(),
        "torch_s": best.median(),
        "ratio": ours.median() / best.median(),
        "ours_bytes": is_step.then_some(ours.peak_bytes),
        "torch_bytes": is_step.then_some(best.peak_bytes),
        "torch_layout": best.name,
        "ours_gflops": giga(ours),
        "torch_gflops": giga(best),
        "peak_gflops": peak / 1e9,
    });
    for side in &times {
        result["trials"][side.name] = json!(side.seconds);
    }
    Ok(result)
}

fn print_head() {
    println!(
        "{:38} {:>9} {:>9} {:>6} {:>14} {:>8} {:>8} {:>7} {:>9} {:>9}",
        "case",
        "ours ms",
        "torch ms",
        "ratio",
        "torch's layout",
        "GFLOP/s",
        "torch",
        "of peak",
        "ours MiB",
        "torch MiB"
    );
}

fn print_row(case: &Case, ours: &Times, torch: &Times, peak: f64) {
    let rate = |times: &Times| case.operations / times.median();
    let or_blank = |text: String, show: bool| if show { text } else { String::new() };
    let computes = case.operations > 0.0;
    let memory = |times: &Times| {
        or_blank((times.peak_bytes >> 20).to_string(), case.name.starts_with("step"))
    };
    println!(
        "{:38} {:>9.3} {:>9.3} {:>6.2} {:>14} {:>8} {:>8} {:>7} {:>9} {:>9}",
        case.name,
        ours.median() * 1e3,
        torch.median() * 1e3,
        ours.median() / torch.median(),
        torch.name,
        or_blank(format!("{:.0}", rate(ours) / 1e9), computes),
        or_blank(format!("{:.0}", rate(torch) / 1e9), computes),
        or_blank(format!("{:.0} %", 100.0 * rate(ours) / peak), computes),
        memory(ours),
        memory(torch),
    );
}
