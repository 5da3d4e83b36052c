//! Does training steps from a file to a file, for parity checks from any language.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use moco_cli::{Device, Exit, exit_code, print_result};
use moco_config::load_pretrain;
use moco_train::{StepConfig, run_step_file};

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
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let plan = load_pretrain(&args.config, &args.sets)?.plan;
    let config = StepConfig {
        device: args.device.open_for(&plan)?,
        precision: plan.precision,
        encoder: plan.encoder,
        head: plan.head,
        moco: plan.moco,
        optimizer: plan.optimizer,
        seed: plan.seed,
    };
    let [n_steps, n_gradients] =
        [args.steps, args.gradients].map(|n| n.unwrap_or(u32::MAX) as usize);
    let losses = run_step_file(&config, &args.input, &args.output, (n_steps, n_gradients))?;
    for (step, loss) in losses.iter().enumerate() {
        print_result(&format!("step {step}  loss {loss}"));
    }
    Ok(Exit::Done)
}
