//! Measures a pretrained encoder by the kNN vote.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use moco_cli::{
    Activations, Device, Exit, labeled_features, print_result, run_program, trained_encoder,
};
use moco_evaluate::{KnnConfig, knn_accuracy};

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

/// Measures a pretrained encoder by the weighted kNN vote on its backbone features.
#[derive(Debug, Parser)]
#[command(name = "knn", version, after_help = "Example: cargo xtask knn runs/0001-default")]
struct Args {
    /// A run folder, or a checkpoint file.
    run: PathBuf,
    /// Where features are computed: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How activations are stored meanwhile: f32, or as_trained, which is bf16 if the run trained in bf16.
    #[arg(long, default_value = "f32")]
    activations: Activations,
    /// Neighbors that vote; repeat it to see several.
    #[arg(short = 'k', long = "neighbors", default_values_t = [200], value_parser = clap::value_parser!(u32).range(1..))]
    n_neighbors: Vec<u32>,
    /// Temperature of the weights exp(cosine/temperature).
    #[arg(long, default_value_t = 0.1)]
    temperature: f64,
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
    print_result("step  neighbors  temperature  images  accuracy");
    for n_neighbors in &args.n_neighbors {
        let config =
            KnnConfig { n_neighbors: *n_neighbors as usize, temperature: args.temperature };
        let accuracy = knn_accuracy(&train, &test, config, &mut |_, _| ())?;
        let step = trained.model.global_step();
        print_result(&format!(
            "{step:>4}  {n_neighbors:>9}  {:>11}  {:>6}  {accuracy:>6.2} %",
            args.temperature,
            test.len(),
        ));
    }
    Ok(Exit::Done)
}
