//! Measures a pretrained encoder by a linear classifier on its frozen features.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use moco_cli::{
    Activations, Device, Exit, labeled_features, print_result, run_program, trained_encoder,
};
use moco_evaluate::{linear_accuracy, train_linear};
use moco_train::linear_config;

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

/// Trains a linear classifier on a pretrained encoder's frozen backbone features and prints its accuracy.
///
/// Features are computed once, without augmentation, and standardized; settings come from the run's
/// config, section `evaluate`.
#[derive(Debug, Parser)]
#[command(name = "lincls", version, after_help = "Example: cargo xtask lincls runs/0001-default")]
struct Args {
    /// A run folder, or a checkpoint file.
    run: PathBuf,
    /// Where features are computed: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How activations are stored meanwhile: f32, or as_trained, which is bf16 if the run trained in bf16.
    #[arg(long, default_value = "f32")]
    activations: Activations,
    /// Learning rate instead of the config's.
    #[arg(long)]
    lr: Option<f64>,
    /// Epochs instead of the config's.
    #[arg(long)]
    epochs: Option<u64>,
}

fn main() -> ExitCode {
    run_program(|_| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut trained = trained_encoder(&args.run, args.device, args.activations)?;
    let [train, test] = labeled_features(&mut trained)?;
    let plan = &trained.plan;
    let mut config = linear_config(&plan.evaluation.linear);
    config.lr = args.lr.unwrap_or(config.lr);
    config.epochs = args.epochs.unwrap_or(config.epochs);
    let probe = train_linear(&train, train.n_classes().max(test.n_classes()), &config, plan.seed)?;
    let accuracy = linear_accuracy(&probe, &test)?;
    print_result("step  epochs     lr  accuracy");
    let step = trained.model.global_step();
    print_result(&format!("{step:>4}  {:>6}  {:>5}  {accuracy:>6.2} %", config.epochs, config.lr));
    Ok(Exit::Done)
}
