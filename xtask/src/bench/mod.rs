//! `cargo xtask bench`: ours and a peer's, interleaved in one run on one machine; and a model of what no
//! available machine can measure.

mod cases;
mod data;
mod gpu;
mod gpu_table;
mod median;
mod python;
mod side;
mod step;

use std::iter::once;

use clap::Subcommand;

use crate::stage::{self, StageArgs};

pub(crate) use self::gpu::Unfit;

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Training steps and single operations on the CPU, compared with PyTorch
    Step(step::Args),
    /// Decoding and augmentation, compared with torchvision and DALI
    Data(data::DataArgs),
    /// Training steps on a GPU, whole and in phases, compared with PyTorch eager and compiled
    Gpu(gpu::Args),
    /// A model of what a step costs an H100; needs no GPU
    #[command(disable_help_flag = true)]
    GpuModel(StageArgs),
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Step(args) => step::run(args),
        Bench::Data(args) => data::run(args),
        Bench::Gpu(args) => gpu::run(args),
        Bench::GpuModel(StageArgs { args }) => {
            let args: Vec<_> = once("gpu-model".into()).chain(args.iter().cloned()).collect();
            stage::run("bench", &[], &args)
        }
    }
}
