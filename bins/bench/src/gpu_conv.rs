//! `bench gpu-conv`: six large convolutions of ResNet-50 in their three directions, through both of cuDNN's
//! interfaces. `xtask/src/bench/torch_gpu_conv.py` is PyTorch's side, and prints the same.

use std::time::Instant;

use anyhow::Context as _;
use candle_core::{DType, Tensor};
use clap::{Args as ClapArgs, value_parser};
use moco_cli::{Device, Exit, print_result, usage};
use moco_ops::{
    Conv2dSpec, ConvBackend, Precision, conv2d, conv2d_input_gradient, conv2d_weight_gradient,
    convolution_choices,
};
use serde_json::{Map, Value, json};

use crate::case::normal;
use crate::gpu_step::{PRECISIONS, median, precision};

/// Prints one JSON object: for each convolution and direction, and for each interface, the median of the
/// milliseconds and the 10^12 floating-point operations a second that they mean, and the algorithm that was
/// chosen; or why there is none. A computation reorders the weight, or its gradient, as a step does.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where to compute: cuda:N, or cpu to try the program out
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// How activations are stored and multiplied: bf16, tf32 or f32
    #[arg(long, default_value = "bf16", value_parser = precision)]
    precision: Precision,
    /// Images
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=65_536))]
    batch_size: u32,
    /// Timed samples; their median counts
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u32).range(1..=1000))]
    samples: u32,
    /// Computations in a sample, queued one after the other
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1000))]
    repeats: u32,
}

/// A convolution of ResNet-50 at 224².
struct Case {
    name: &'static str,
    c: usize,
    size: usize,
    c_out: usize,
    k: usize,
    stride: usize,
    directions: &'static [Direction],
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Forward,
    InputGradient,
    WeightGradient,
}

use Direction::{Forward, InputGradient, WeightGradient};

const ALL: &[Direction] = &[Forward, InputGradient, WeightGradient];

/// The images have no gradient.
#[rustfmt::skip]
const CASES: [Case; 6] = [
    Case { name: "stem 7x7/2 3-64", c: 3, size: 224, c_out: 64, k: 7, stride: 2, directions: &[Forward, WeightGradient] },
    Case { name: "layer1 1x1 64-256", c: 64, size: 56, c_out: 256, k: 1, stride: 1, directions: ALL },
    Case { name: "layer1 3x3 64-64", c: 64, size: 56, c_out: 64, k: 3, stride: 1, directions: ALL },
    Case { name: "layer2 3x3 128-128", c: 128, size: 28, c_out: 128, k: 3, stride: 1, directions: ALL },
    Case { name: "layer3 1x1 1024-256", c: 1024, size: 14, c_out: 256, k: 1, stride: 1, directions: ALL },
    Case { name: "layer4 3x3 512-512", c: 512, size: 7, c_out: 512, k: 3, stride: 1, directions: ALL },
];

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Forward => "forward",
            InputGradient => "dx",
            WeightGradient => "dw",
        }
    }
}

impl Case {
    fn spec(&self) -> Conv2dSpec {
        Conv2dSpec::new(self.stride, self.k / 2)
    }

    /// Floating-point operations, a multiplication and an addition counted as two.
    fn operations(&self, batch_size: u32) -> f64 {
        let out = self.size.div_ceil(self.stride);
        let products = out * out * self.c_out * self.c * self.k * self.k;
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
        let products = products as f64;
        2.0 * products * f64::from(batch_size)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let backends: &[(&str, ConvBackend)] = if args.device == Device::Cpu {
        if args.precision != Precision::F32 {
            let message = "--device cpu computes only in f32; add --precision f32";
            return Err(usage(Exit::Usage, message));
        }
        &[("cpu", ConvBackend::Auto)]
    } else {
        // What is known to work goes first: after a fault on the device nothing does.
        &[("legacy", ConvBackend::Legacy), ("graph", ConvBackend::Graph)]
    };
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for case in &CASES {
        for direction in case.directions {
            let row = json!({ "name": case.name, "direction": direction.name() });
            rows.extend(row.as_object().cloned());
        }
    }
    let mut interfaces = Map::new();
    for (name, backend) in backends {
        // One that is not there ends the program; all later failures are results.
        let device = args.device.open_with(args.precision, *backend)?;
        let mut next = rows.iter_mut();
        for case in &CASES {
            let results = measure(args, case, &device);
            // The results end first, so that no row is taken for nothing.
            for (result, row) in results.into_iter().zip(next.by_ref()) {
                let failed = |error: anyhow::Error| json!({ "error": format!("{error:#}") });
                row.insert((*name).to_owned(), result.unwrap_or_else(failed));
            }
        }
        let chosen_by = choices(&device).ok().and_then(|lines| lines.into_iter().next());
        interfaces.insert((*name).to_owned(), chosen_by.into());
    }
    let name = |(name, _): &(&'static str, Precision)| *name;
    let report = json!({
        "side": "ours",
        "precision": PRECISIONS.iter().find(|(_, known)| *known == args.precision).map(name),
        "batch_size": args.batch_size,
        "samples": args.samples,
        "repeats": args.repeats,
        "interfaces": interfaces,
        "convolutions": rows,
    });
    print_result(&report.to_string());
    Ok(Exit::Done)
}

/// A result for each direction of a convolution.
fn measure(args: &Args, case: &Case, device: &candle_core::Device) -> Vec<anyhow::Result<Value>> {
    match Operands::new(args, case, device) {
        Ok(operands) => {
            let directions = case.directions.iter();
            directions.map(|direction| operands.measure(args, case, *direction)).collect()
        }
        Err(error) => {
            let error = format!("{error:#}");
            case.directions.iter().map(|_| Err(anyhow::anyhow!(error.clone()))).collect()
        }
    }
}

struct Operands {
    device: candle_core::Device,
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
}

impl Operands {
    fn new(args: &Args, case: &Case, device: &candle_core::Device) -> anyhow::Result<Self> {
        let Case { c, size, c_out, k, stride, .. } = *case;
        let n = args.batch_size as usize;
        let out = size.div_ceil(stride);
        let dtype = args.precision.activations();
        Ok(Self {
            device: device.clone(),
            x: activations([n, c, size, size], dtype, device)?,
            weight: normal(&[c_out, c, k, k], 1)?.to_device(device)?,
            dy: activations([n, c_out, out, out], dtype, device)?,
        })
    }

    fn compute(&self, spec: Conv2dSpec, direction: Direction) -> anyhow::Result<Tensor> {
        let Self { x, weight, dy, .. } = self;
        Ok(match direction {
            Forward => conv2d(x, weight, spec)?,
            InputGradient => conv2d_input_gradient(x.dims(), weight, dy, spec)?,
            WeightGradient => conv2d_weight_gradient(x, weight.dims(), dy, spec)?,
        })
    }

    fn measure(&self, args: &Args, case: &Case, direction: Direction) -> anyhow::Result<Value> {
        let before = choices(&self.device)?;
        // The first chooses an algorithm.
        let start = Instant::now();
        self.compute(case.spec(), direction)?;
        self.device.synchronize().context("the first computation")?;
        let first_secs = start.elapsed().as_secs_f64();
        let sample = |_| {
            let start = Instant::now();
            for _ in 0..args.repeats {
                self.compute(case.spec(), direction)?;
            }
            self.device.synchronize()?;
            Ok(1e3 * start.elapsed().as_secs_f64() / f64::from(args.repeats))
        };
        let samples = (0..args.samples).map(sample).collect::<anyhow::Result<Vec<f64>>>()?;
        let ms = median(&samples);
        let after = choices(&self.device)?;
        let chosen = after.iter().find(|line| !before.contains(line));
        let algorithm = chosen.and_then(|line| Some(line.rsplit_once(": ")?.1));
        Ok(json!({
            "ms": ms,
            "tflops": case.operations(args.batch_size) / (ms * 1e9),
            "choice": algorithm,
            "first_secs": first_secs,
        }))
    }
}

/// The library that chose, and the choice for each convolution so far.
fn choices(device: &candle_core::Device) -> anyhow::Result<Vec<String>> {
    let choices = convolution_choices(device)?.unwrap_or_default();
    Ok(choices.lines().map(String::from).collect())
}

/// Activations `[N, C, H, W]`, which are stored with channels last.
fn activations(
    [n, c, h, w]: [usize; 4],
    dtype: DType,
    device: &candle_core::Device,
) -> anyhow::Result<Tensor> {
    // Images that are alike compute as long as others, and a batch of them is there at once.
    let image = normal(&[1, h, w, c], 0)?.to_device(device)?.to_dtype(dtype)?;
    let images = image.broadcast_as((n, h, w, c))?.contiguous()?;
    Ok(images.permute((0, 3, 1, 2))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_as_the_papers_do() {
        // 3 · 49 · 64 products for each of 112² pixels.
        let [stem, .., layer4] = &CASES;
        assert_eq!(stem.operations(1).to_bits(), 236_027_904.0_f64.to_bits());
        assert_eq!(layer4.operations(2).to_bits(), (2.0 * 231_211_008.0_f64).to_bits());
    }

    #[test]
    fn the_images_alone_have_no_gradient() {
        let n_directions: Vec<usize> = CASES.iter().map(|case| case.directions.len()).collect();
        assert_eq!(n_directions, [2, 3, 3, 3, 3, 3]);
    }
}
