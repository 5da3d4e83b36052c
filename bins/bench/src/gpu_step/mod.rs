//! `bench gpu-step`: how long a training step takes on a device, whole and in parts, and how fast the
//! pipeline feeds it. `cargo xtask bench gpu` runs it beside PyTorch.

mod feed;
mod kernels;
mod phases;
mod setup;
mod stepper;
mod whole;

use std::time::Instant;

use anyhow::bail;
use clap::{Args as ClapArgs, value_parser};
use moco_cli::{Device, Exit, print_result, usage};
use moco_encoders::Arch;
use moco_ops::{ConvBackend, Precision};
use serde_json::{Value, json};

use self::setup::Setup;

pub(crate) const PRECISIONS: [(&str, Precision); 3] =
    [("f32", Precision::F32), ("tf32", Precision::Tf32), ("bf16", Precision::Bf16)];
const CONV_BACKENDS: [(&str, ConvBackend); 3] =
    [("auto", ConvBackend::Auto), ("legacy", ConvBackend::Legacy), ("graph", ConvBackend::Graph)];

/// Prints one JSON object: milliseconds of a whole step (MoCo v2: MLP head, 128 dimensions, Shuffling BN;
/// batch norm over the whole batch), milliseconds of its phases, images a second, the peak of the
/// device's memory, and the losses of the first and the last step.
///
/// Whole steps are queued without waiting for the device; phases are timed one by one with a wait on
/// each side, in steps of their own. The views lie on the device already, except with --feed.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Args {
    /// Where to compute: cuda:N, or cpu to try the program out
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// How activations are stored and multiplied: bf16, tf32 or f32
    #[arg(long, default_value = "bf16", value_parser = precision)]
    precision: Precision,
    /// Architecture, with the ImageNet stem
    #[arg(long, default_value = "resnet50", value_parser = arch)]
    arch: (&'static str, Arch),
    /// Height and width of the views
    #[arg(long, default_value_t = 224, value_parser = value_parser!(u32).range(32..=4096))]
    size: u32,
    /// Images of a step, each with two views
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(2..=65_536))]
    batch_size: u32,
    /// Keys in the queue
    #[arg(long, default_value_t = 65_536, value_parser = value_parser!(u32).range(2..=16_777_216))]
    queue_size: u32,
    /// Steps in a timed block, and steps whose phases are timed
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Timed blocks of whole steps; the time of a step is their median
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    blocks: u32,
    /// Steps before the first timed one
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=100_000))]
    warmup: u32,
    /// What convolutions go through: auto, legacy or graph
    #[arg(long, default_value = "auto", value_parser = conv_backend)]
    conv_backend: (&'static str, ConvBackend),
    /// Repeats one recorded step (a CUDA graph) in place of telling the device each operation
    #[arg(long)]
    cuda_graph: bool,
    /// Also tells the time of each kernel in steps that are not recorded, with the bytes and products that
    /// it needs at least
    #[arg(long)]
    kernels: bool,
    /// Also trains on decoded images that come through the pipeline, as a run does
    #[arg(long)]
    feed: bool,
    /// Threads that prepare views, with --feed
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u32).range(1..=1024))]
    decoders: u32,
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

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.device == Device::Cpu && args.precision != Precision::F32 {
        return Err(usage(Exit::Usage, "--device cpu computes in f32 alone; add --precision f32"));
    }
    for (given, flag) in [(args.cuda_graph, "--cuda-graph"), (args.kernels, "--kernels")] {
        if args.device == Device::Cpu && given {
            return Err(usage(Exit::Usage, format!("{flag} needs --device cuda:N")));
        }
    }
    let device = args.device.open_with(args.precision, args.conv_backend.1)?;
    let setup = Setup {
        arch: args.arch.1,
        size: args.size as usize,
        batch_size: args.batch_size as usize,
        queue_size: args.queue_size as usize,
        dtype: args.precision.activations(),
        device,
    };
    print_result(&measure(args, &setup)?.to_string());
    Ok(Exit::Done)
}

/// All numbers, each stage with memory of its own.
fn measure(args: &Args, setup: &Setup) -> anyhow::Result<Value> {
    let views = setup.views()?;
    let mut moco = setup.moco()?;
    let whole = whole::measure(&mut moco, &views, &setup.device, args)?;
    // Before anything else takes memory.
    let peak_memory_bytes = moco_ops::peak_device_memory_bytes(&setup.device)?;
    let kernels = args.kernels.then(|| kernels::measure(&mut moco, &views, setup)).transpose()?;
    let feed = args.feed.then(|| feed::measure(&mut moco, setup, args)).transpose()?;
    drop(moco);
    let phases = phases::measure(setup, &views, args)?;
    let step_ms = median(&whole.blocks_ms);
    let images_per_second = 1e3 * f64::from(args.batch_size) / step_ms;
    let [first_loss, last_loss] = whole.losses;
    if ![first_loss, last_loss].iter().all(|loss| loss.is_finite()) {
        bail!("the loss went from {first_loss} to {last_loss}");
    }
    let name = |(name, _): &(&'static str, Precision)| *name;
    let precision = PRECISIONS.iter().find(|(_, known)| *known == args.precision).map(name);
    Ok(json!({
        "side": "ours",
        "device": setup.device_name()?,
        "precision": precision,
        "arch": args.arch.0,
        "size": args.size,
        "batch_size": args.batch_size,
        "queue_size": args.queue_size,
        "bn_groups": 1,
        "conv_backend": args.conv_backend.0,
        "cuda_graph": args.cuda_graph,
        "steps": args.steps,
        "warmup": args.warmup,
        "blocks_ms": whole.blocks_ms,
        "step_ms": step_ms,
        "images_per_second": images_per_second,
        "phases_ms": phases.json(),
        "peak_memory_bytes": peak_memory_bytes,
        "kernels": kernels,
        "first_loss": first_loss,
        "last_loss": last_loss,
        "feed": feed.map(|feed| feed.json(images_per_second)),
    }))
}

/// Does `work` between two waits for the device; gives its result and the milliseconds.
fn timed<T>(
    device: &candle_core::Device,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, f64)> {
    device.synchronize()?;
    let start = Instant::now();
    let result = work()?;
    device.synchronize()?;
    Ok((result, 1e3 * start.elapsed().as_secs_f64()))
}

/// The middle; the upper one of two.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, String> {
        let words = std::iter::once("gpu-step").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (numbers, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 4.0)] {
            assert_eq!(median(&numbers), expected);
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn wrong_names_are_answered_with_the_right_ones() {
        for (line, expected) in [
            ("--precision f16", "expected bf16, tf32 or f32"),
            ("--conv-backend cudnn", "expected auto, legacy or graph"),
            ("--arch vgg16", "there are resnet10, "),
            ("--size 8", "32..=4096"),
        ] {
            let message = args(line).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let error = run(&args("--device cpu").unwrap()).unwrap_err().to_string();
        assert_eq!(error, "--device cpu computes in f32 alone; add --precision f32");
    }

    /// Types and shapes as on a device: bf16 activations, everything else f32, own kernels for all.
    #[test]
    fn bf16_steps_and_phases_run_on_the_emulated_gpu() {
        let line = "--arch resnet10 --size 32 --batch-size 4 --queue-size 8 --steps 1 --blocks 1 \
                    --warmup 1";
        let args = args(line).unwrap();
        assert_eq!((args.device, args.precision), (Device::Cuda(0), Precision::Bf16));
        let setup = Setup {
            arch: Arch::ResNet10,
            size: 32,
            batch_size: 4,
            queue_size: 8,
            dtype: DType::BF16,
            device: candle_core::Device::Cpu,
        };
        let (report, launched) = moco_ops::emulate(|| measure(&args, &setup).unwrap());
        assert_eq!(report["precision"], "bf16");
        for loss in ["first_loss", "last_loss"] {
            assert!(report[loss].as_f64().unwrap() > 0.0, "{report}");
        }
        for kernel in ["bn_moments_bf16", "sgd", "ema"] {
            assert!(launched.iter().any(|name| name.starts_with(kernel)), "{launched:?}");
        }
    }
}
