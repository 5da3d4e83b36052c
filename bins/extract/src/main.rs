//! Writes a pretrained encoder's features to a file.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use candle_core::Tensor;
use clap::Parser;
use moco_cli::{
    Activations, Device, Exit, labeled_features, print_result, run_program, trained_encoder,
};

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

/// Writes the backbone features of the labeled splits as safetensors: `train.features` and
/// `test.features` `[N, feature_dim]` f32, `train.labels` and `test.labels` `[N]` u32, and
/// `train.sample_indices` and `test.sample_indices` `[N]` i64: the images' numbers in their split, for images without a
/// label and images that cannot be used are not among them.
#[derive(Debug, Parser)]
#[command(
    name = "extract",
    version,
    after_help = "Example: cargo xtask extract runs/0001-default --out features.safetensors"
)]
struct Args {
    /// A run folder, or a checkpoint file.
    run: PathBuf,
    /// Where features are computed: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How activations are stored meanwhile: f32, or as_trained, which is bf16 if the run trained in bf16.
    #[arg(long, default_value = "f32")]
    activations: Activations,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Leaves out at most this many images of each split that cannot be used; as the run's config says if not given.
    #[arg(long, value_name = "N")]
    skip_bad: Option<u64>,
}

fn main() -> ExitCode {
    run_program(|_| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut trained = trained_encoder(&args.run, args.device, args.activations)?;
    let splits = labeled_features(&mut trained, args.skip_bad)?;
    let mut tensors = BTreeMap::new();
    for (split, encoded) in ["train", "test"].into_iter().zip(&splits) {
        let set = &encoded.features;
        let dims = (set.len(), set.dim());
        let features = Tensor::from_vec(set.numbers().to_vec(), dims, &candle_core::Device::Cpu)?;
        let labels = Tensor::from_vec(set.labels().to_vec(), set.len(), &candle_core::Device::Cpu)?;
        print_result(&format!("{split}: {} features of width {}", set.len(), set.dim()));
        tensors.insert(format!("{split}.features"), features);
        let indices = encoded.sample_indices.iter().map(|index| i64::try_from(*index));
        let indices = indices.collect::<Result<Vec<i64>, _>>()?;
        let indices = Tensor::from_vec(indices, set.len(), &candle_core::Device::Cpu)?;
        tensors.insert(format!("{split}.labels"), labels);
        tensors.insert(format!("{split}.sample_indices"), indices);
    }
    let bytes = safetensors::serialize(&tensors, None)?;
    std::fs::write(&args.out, bytes)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    print_result(&format!("written to {}", args.out.display()));
    Ok(Exit::Done)
}
