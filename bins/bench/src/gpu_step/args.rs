//! The command line of `bench gpu-step`.

use clap::{Args as ClapArgs, value_parser};
use moco_cli::Device;
use moco_encoders::Arch;
use moco_ops::{ConvBackend, Precision};

pub(crate) const PRECISIONS: [(&str, Precision); 3] =
    [("f32", Precision::F32), ("tf32", Precision::Tf32), ("bf16", Precision::Bf16)];
const CONV_BACKENDS: [(&str, ConvBackend); 3] =
    [("auto", ConvBackend::Auto), ("legacy", ConvBackend::Legacy), ("graph", ConvBackend::Graph)];

/// Prints one JSON object: milliseconds of a whole step (MoCo v2: MLP head, 128 dimensions, Shuffling BN;
/// batch norm over the whole batch), milliseconds of its phases, images a second, the peak of the
/// device's memory, and the losses of the first and the last step.
///
/// Whole steps are queued without waiting for the device; phases are timed one by one with a wait on
/// each side, in steps of their own. The views are on the device already, except with --feed.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Args {
    /// Where to compute: cuda:N, or cpu to try the program out
    #[arg(long, default_value = "cuda:0")]
    pub(super) device: Device,
    /// How activations are stored and multiplied: bf16, tf32 or f32
    #[arg(long, default_value = "bf16", value_parser = precision)]
    pub(super) precision: Precision,
    /// Architecture, with the ImageNet stem
    #[arg(long, default_value = "resnet50", value_parser = arch)]
    pub(super) arch: (&'static str, Arch),
    /// Height and width of the views
    #[arg(long, default_value_t = 224, value_parser = value_parser!(u32).range(32..=4096))]
    pub(super) size: u32,
    /// Images of a step, each with two views
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(2..=65_536))]
    pub(super) batch_size: u32,
    /// Keys in the queue
    #[arg(long, default_value_t = 65_536, value_parser = value_parser!(u32).range(2..=16_777_216))]
    pub(super) queue_size: u32,
    /// Steps in a timed block, and steps whose phases are timed
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(super) steps: u32,
    /// Timed blocks of whole steps; the time of a step is their median
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    pub(super) blocks: u32,
    /// Steps before the first timed one
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(super) warmup: u32,
    /// What convolutions go through: auto, legacy or graph
    #[arg(long, default_value = "auto", value_parser = conv_backend)]
    pub(super) conv_backend: (&'static str, ConvBackend),
    /// Replays one captured step (a CUDA graph) instead of launching each operation
    #[arg(long)]
    pub(super) cuda_graph: bool,
    /// Also prints the time of each kernel in eager steps, with the bytes and products that
    /// it needs at least
    #[arg(long)]
    pub(super) kernels: bool,
    /// Also trains on decoded images that come through the pipeline, as a run does
    #[arg(long)]
    pub(super) feed: bool,
    /// Threads that prepare views, with --feed
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u32).range(1..=1024))]
    pub(super) decoders: u32,
}

pub(crate) fn precision(text: &str) -> Result<Precision, String> {
    let found = PRECISIONS.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, precision)| precision).ok_or_else(|| "expected bf16, tf32 or f32".into())
}

fn conv_backend(text: &str) -> Result<(&'static str, ConvBackend), String> {
    let found = CONV_BACKENDS.into_iter().find(|(name, _)| *name == text);
    found.ok_or_else(|| "expected auto, legacy or graph".into())
}

fn arch(text: &str) -> Result<(&'static str, Arch), String> {
    let found = Arch::NAMES.into_iter().find(|(name, _)| *name == text);
    found.ok_or_else(|| format!("there are {}", Arch::NAMES.map(|(name, _)| name).join(", ")))
}
