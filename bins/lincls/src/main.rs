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
    /// Leaves out at most this many images of each split that cannot be used; as the run's config says if not given.
    #[arg(long, value_name = "N")]
    skip_bad: Option<u64>,
}

fn main() -> ExitCode {
    run_program(|_| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut trained = trained_encoder(&args.run, args.device, args.activations)?;
    let [train, test] = labeled_features(&mut trained, args.skip_bad)?.map(|of| of.features);
    let plan = &trained.plan;
    let mut config = linear_config(&plan.evaluation.linear);
    config.lr = args.lr.unwrap_or(config.lr);
    config.epochs = args.epochs.unwrap_or(config.epochs);
    let n_classes = train.n_classes().max(test.n_classes());
    let probe = train_linear(&train, n_classes, &config, plan.seed, &mut |_, _| ())?;
    let accuracy = linear_accuracy(&probe, &test)?;
    print_result("step  epochs     lr  images  accuracy");
    let step = trained.model.global_step();
    let (epochs, lr, n_images) = (config.epochs, config.lr, test.len());
    print_result(&format!("{step:>4}  {epochs:>6}  {lr:>5}  {n_images:>6}  {accuracy:>6.2} %"));
    Ok(Exit::Done)
}
