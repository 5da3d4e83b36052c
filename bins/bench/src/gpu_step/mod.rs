//! `bench gpu-step`: how long a training step takes on a device, whole and in parts, and how fast the
//! pipeline feeds it. `cargo xtask bench gpu` runs it in turns with PyTorch.

mod args;
mod feed;
mod kernels;
mod phases;
mod setup;
mod stepper;
mod timing;
mod whole;

use anyhow::bail;
use moco_cli::{Device, Exit, print_result, usage};
use moco_ops::Precision;
use serde_json::{Value, json};

pub(crate) use self::args::{Args, PRECISIONS, precision};
use self::setup::Setup;
pub(crate) use self::timing::median;

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.device == Device::Cpu && args.precision != Precision::F32 {
        return Err(usage(Exit::Usage, "--device cpu computes only in f32; add --precision f32"));
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

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use clap::Parser;
    use moco_encoders::Arch;

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
        assert_eq!(error, "--device cpu computes only in f32; add --precision f32");
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
