//! Does training steps from a file to a file, for parity checks from any language.
#![forbid(unsafe_code)]

mod step_file;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use moco_cli::{Device, Exit, print_result, run_program};
use moco_config::load_pretrain;

use crate::step_file::{Limits, run_step_file};

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

/// Reads a state and the views of n steps from a safetensors file, trains, and writes loss, gradients
/// and the new state.
///
/// Network and method come from the config. docs/step-file.md describes both files.
#[derive(Debug, Parser)]
#[command(
    name = "step",
    version,
    after_help = "Example: cargo xtask step --config configs/pretrain/moco-v2-in1m-200ep.toml \
                  --input state.safetensors --output result.safetensors"
)]
struct Args {
    /// The config of network, method and optimizer.
    #[arg(long)]
    config: PathBuf,
    /// Overrides a key of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The file with the state and the views.
    #[arg(long)]
    input: PathBuf,
    /// The file to write.
    #[arg(long)]
    output: PathBuf,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Steps to do; as many as the input has views for if left out.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// Steps whose gradients are written; all if left out.
    #[arg(long)]
    gradients: Option<u32>,
}

fn main() -> ExitCode {
    run_program(|_| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let plan = load_pretrain(&args.config, &args.sets)?.plan;
    let device = args.device.open_for(&plan)?;
    let limit = |n: Option<u32>| n.unwrap_or(u32::MAX) as usize;
    let limits = Limits { steps: limit(args.steps), gradients: limit(args.gradients) };
    let losses = run_step_file(&plan, &device, &args.input, &args.output, limits)?;
    for (step, loss) in losses.iter().enumerate() {
        print_result(&format!("step {step}  loss {loss}"));
    }
    Ok(Exit::Done)
}
