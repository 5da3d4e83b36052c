//! Our side of `cargo xtask bench`: does what a line of its input names and says how long it took, times
//! a step or convolutions on a GPU, or models one.
#![forbid(unsafe_code)]

mod case;
mod cases;
mod gpu_conv;
mod gpu_items;
mod gpu_model;
mod gpu_step;
mod ops;
mod step;

use std::io::{BufRead as _, stdin};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use moco_cli::{Exit, print_result, run_program};

use crate::case::Case;

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

/// Times operations and training steps for `cargo xtask bench step`, which runs this in turns with PyTorch.
///
/// Each line of the input names a case; the answer is one line with the seconds that it took once. A
/// case that differs from the line before is set up and warmed up first. `memory` answers with the peak
/// of the process's memory in bytes. The cases are
///
///   peak                                       multiply-adds in registers: 10^9 floating-point operations
///   step ARCH STEM SIZE BATCH                  forward, backward and SGD of an encoder
///   conv N C SIZE C_OUT K STRIDE PASS          PASS: forward, dx or dw
///   bn N C SIZE PASS                           batch norm and ReLU; PASS: forward or backward
///   bn_add N C SIZE PASS                       batch norm, addition and ReLU
///   max_pool N C SIZE PASS                     3×3, stride 2
///   info_nce N K                               loss and gradient, 128 dimensions
///   sgd N / ema N                              N parameters updated in place
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    version,
    verbatim_doc_comment,
    after_help = "Example: echo step resnet18 cifar 32 32 | bench"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "the names of the subcommands")]
enum Command {
    GpuItems(gpu_items::Args),
    GpuConv(gpu_conv::Args),
    GpuModel(gpu_model::Args),
    GpuStep(gpu_step::Args),
}

fn main() -> ExitCode {
    run_program(|_| match Args::parse().command {
        None => answer_lines(),
        Some(Command::GpuItems(args)) => gpu_items::run(&args),
        Some(Command::GpuConv(args)) => gpu_conv::run(&args),
        Some(Command::GpuModel(args)) => gpu_model::run(&args).map(|()| Exit::Done),
        Some(Command::GpuStep(args)) => gpu_step::run(&args),
    })
}

fn answer_lines() -> anyhow::Result<Exit> {
    let mut current: Option<(String, Case)> = None;
    for line in stdin().lock().lines() {
        let line = line.context("cannot read the input")?;
        if line == "memory" {
            print_result(&peak_memory()?.to_string());
            continue;
        }
        if current.as_ref().is_none_or(|(name, _)| *name != line) {
            // The case before gives its memory back before the next one takes some.
            drop(current.take());
            let mut case = cases::case(&line)?;
            for _ in 0..2 {
                case.run()?;
            }
            current = Some((line, case));
        }
        if let Some((_, case)) = &mut current {
            print_result(&case.run()?.to_string());
        }
    }
    Ok(Exit::Done)
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this needs Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("the kernel names no VmHWM")?.parse()?;
    Ok(kib * 1024)
}
