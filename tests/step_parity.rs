//! Two training steps against PyTorch: loss, features, every gradient, updated weights of both encoders,
//! batch norm's buffers, momentum buffers, queue and pointer. The golden files come from
//! `golden/generate_step.py` (torchvision's ResNets, the official step order).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use moco::{Batch, MechanismKind, Moco, MocoConfig, QueuePrecision, Shuffle, StepOutput};
use moco_encoders::{
    Arch, BnConfig, Encoder as _, HeadKind, ResNet, ResNetConfig, RunningStats, Stem,
};
use moco_optim::SgdConfig;
use moco_rng::Seed;
use safetensors::SafeTensors;

use crate::formulas::fill;

/// Relative difference that two implementations in f64 may have.
const F64_TOLERANCE: f64 = 1e-10;
/// The same in f32, against PyTorch's f64 result from the same rounded start.
const F32_TOLERANCE: f64 = 1e-5;
/// Gradients of the second step amplify the first step's rounding: PyTorch's own f32 is up to 1.4e-5 off
/// its f64 there (`torch_f32_error` in the golden files).
const F32_SECOND_GRADIENT: f64 = 3e-5;

/// By class, with bf16 activations.
#[cfg(feature = "emulator")]
const BF16_TOLERANCES: [(&str, f64); 4] =
    [("loss", 0.03), ("q", 0.1), ("k", 0.1), ("running statistics", 0.05)];

/// A golden file: f64 arrays, the first axis in f32 files is [torch's f32, f64 from the f32 start].
struct Golden {
    arrays: BTreeMap<String, Vec<f64>>,
    metadata: BTreeMap<String, String>,
    dtype: DType,
}

impl Golden {
    fn parse(bytes: &[u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let metadata: BTreeMap<_, _> = header.metadata().clone().unwrap().into_iter().collect();
        let is_single = metadata["dtype"] == "float32";
        let file = SafeTensors::deserialize(bytes).unwrap();
        let arrays = file.iter().map(|(name, view)| {
            let words = view.data().chunks_exact(8).map(|word| word.try_into().unwrap());
            let is_integer = view.dtype() == safetensors::Dtype::I64;
            let numbers: Vec<f64> = words
                .map(|word: [u8; 8]| {
                    if is_integer {
                        i64::from_le_bytes(word) as f64
                    } else {
                        f64::from_le_bytes(word)
                    }
                })
                .collect();
            // Of an f32 file the exact half is compared with.
            let skip = if is_single && !is_integer { numbers.len() / 2 } else { 0 };
            (name.to_owned(), numbers[skip..].to_vec())
        });
        let arrays = arrays.collect();
        Self { arrays, metadata, dtype: if is_single { DType::F32 } else { DType::F64 } }
    }

    fn text(&self, key: &str) -> &str {
        &self.metadata[key]
    }

    fn number(&self, key: &str) -> f64 {
        self.text(key).parse().unwrap()
    }

    fn count(&self, key: &str) -> usize {
        self.text(key).parse().unwrap()
    }

    fn fill(&self, name: &str, dims: &[usize]) -> Vec<f64> {
        fill(&format!("{}/{name}", self.text("seed")), dims.iter().product())
    }

    fn tensor(&self, numbers: Vec<f64>, dims: &[usize]) -> Tensor {
        Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap().to_dtype(self.dtype).unwrap()
    }
}

/// The start of one tensor, as `reference.py: initial_value`.
fn initial(golden: &Golden, prefix: &str, name: &str, dims: &[usize]) -> Vec<f64> {
    let f = golden.fill(&format!("{prefix}.{name}"), dims);
    let last = if golden.text("arch") == "resnet50" { ".bn3." } else { ".bn2." };
    let gain = if name.starts_with("layer") && name.contains(last) { 0.5 } else { 1.0 };
    let value = |f: f64| match dims {
        [co, _, k, _] => f * (6.0 / (co * k * k) as f64).sqrt(),
        [_, c_in] => 4.0 * f / (*c_in as f64).sqrt(),
        _ if name.ends_with("running_mean") => 0.1 * f,
        _ if name.ends_with("running_var") => 1.0 + 0.5 * f,
        _ if name.starts_with("fc.") => 0.4 * f,
        _ if name.ends_with("weight") => gain * (1.0 + 0.2 * f),
        _ => gain * (if f < 0.0 { -1.5 } else { 1.5 } + f),
    };
    f.into_iter().map(value).collect()
}

fn model(golden: &Golden, device: &Device) -> Moco {
    let bn = BnConfig { groups: golden.count("bn_groups"), running: RunningStats::First };
    let arch = if golden.text("arch") == "resnet50" { Arch::ResNet50 } else { Arch::ResNet18 };
    let stem = if golden.text("stem") == "cifar" { Stem::Cifar } else { Stem::ImageNet };
    let config = ResNetConfig { arch, stem, width: 1.0, bn };
    let mut encoder = ResNet::new(config, Seed(0), golden.dtype).unwrap();
    encoder.params_mut().to_device(device).unwrap();
    let head = if golden.text("head") == "mlp" { HeadKind::Mlp } else { HeadKind::Fc };
    let moco = MocoConfig {
        mechanism: MechanismKind::Queue,
        queue_size: golden.count("queue_size"),
        key_momentum: golden.number("key_momentum"),
        temperature: golden.number("temperature"),
        dim: golden.count("dim"),
        symmetric: golden.text("symmetric") == "true",
        shuffle_bn: true,
        queue_precision: QueuePrecision::AsParameters,
    };
    let sgd = SgdConfig {
        sgd_momentum: golden.number("sgd_momentum"),
        weight_decay: golden.number("weight_decay"),
    };
    let mut moco = Moco::new(Box::new(encoder), head, moco, sgd, Seed(0)).unwrap();
    let mut state = moco.state().unwrap();
    for (name, tensor) in &mut state {
        if let Some((prefix, rest)) = name.split_once('.')
            && prefix.starts_with("encoder_")
            && !rest.ends_with("num_batches_tracked")
        {
            *tensor = golden.tensor(initial(golden, prefix, rest, tensor.dims()), tensor.dims());
        }
    }
    let dims = [golden.count("dim"), golden.count("queue_size")];
    let mut queue = golden.fill("queue", &dims);
    for column in 0..dims[1] {
        let squares = (0..dims[0]).map(|row| queue[row * dims[1] + column].powi(2));
        let norm = squares.fold(0.0, |sum, square| sum + square).sqrt();
        (0..dims[0]).for_each(|row| queue[row * dims[1] + column] /= norm);
    }
    state.insert("queue".into(), golden.tensor(queue, &dims));
    let ptr = [golden.text("first_queue_ptr").parse::<i64>().unwrap()];
    state.insert("queue_ptr".into(), Tensor::new(&ptr, &Device::Cpu).unwrap());
    moco.load_state(&state, 0).unwrap();
    moco
}

/// Compares what a step gives with the golden file and keeps the largest differences.
struct Comparison<'a> {
    golden: &'a Golden,
    probes: Vec<Vec<f64>>,
    worst: BTreeMap<String, (f64, String)>,
    compared: usize,
}

impl Comparison<'_> {
    fn note(&mut self, class: &str, name: &str, difference: f64) {
        self.compared += 1;
        let entry = self.worst.entry(class.to_owned()).or_insert((0.0, String::new()));
        if difference >= entry.0 || difference.is_nan() {
            *entry = (difference, name.to_owned());
        }
    }

    /// A small output, stored whole: relative L2 difference.
    fn whole(&mut self, class: &str, name: &str, got: &[f64]) {
        let expected = &self.golden.arrays[name];
        assert_eq!(got.len(), expected.len(), "{name}");
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
        let scale = norm(&mut expected.iter().copied());
        self.note(class, name, difference / scale);
    }

    /// A large output, stored as a fingerprint: [norm, sum, products with probes, samples]. With a random
    /// probe the square of the product of a difference e is |e|²/3 on average, so the products estimate
    /// the relative L2 difference.
    fn fingerprint(&mut self, class: &str, name: &str, tensor: &Tensor) {
        let got = numbers(tensor);
        let expected = &self.golden.arrays[name];
        let norm = expected[0];
        for probe in &mut self.probes {
            if probe.len() < got.len() {
                *probe = Vec::new();
            }
        }
        let (n_probes, n_samples) = (self.probes.len(), expected.len() - 2 - self.probes.len());
        let mut squares = 0.0;
        for j in 0..n_probes {
            if self.probes[j].is_empty() {
                self.probes[j] = fill(&format!("probe{j}"), got.len());
            }
            let product: f64 = got.iter().zip(&self.probes[j]).map(|(a, b)| a * b).sum();
            squares += (product - expected[2 + j]).powi(2);
        }
        self.note(class, name, (3.0 * squares / n_probes as f64).sqrt() / norm);
        // Single elements are measured against the tensor's root mean square, ten times as loosely.
        let rms = norm / (got.len() as f64).sqrt();
        for j in 0..n_samples {
            let index = j * (got.len() - 1) / (n_samples - 1);
            let difference = (got[index] - expected[2 + n_probes + j]).abs();
            self.note(class, name, difference / rms / 10.0);
        }
        let own_norm = got.iter().map(|v| v * v).sum::<f64>().sqrt();
        self.note(class, name, (own_norm - norm).abs() / norm);
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.contiguous().unwrap().flatten_all().unwrap();
    flat.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn compare_step(c: &mut Comparison<'_>, step: usize, moco: &Moco, output: &StepOutput) {
    let at = |name: &str| format!("step{step}.{name}");
    c.whole("loss", &at("loss"), &[output.statistics.read().unwrap().loss]);
    for (what, directions) in [("q", &output.q), ("k", &output.k)] {
        for (direction, rows) in directions.iter().enumerate() {
            c.whole(what, &at(&format!("direction{direction}.{what}")), &numbers(rows));
        }
    }
    for (name, gradient) in &output.gradients {
        let class = if step == 0 { "gradient" } else { "second gradient" };
        c.fingerprint(class, &at(&format!("grad.{name}")), gradient);
    }
    let state = moco.state().unwrap();
    for (name, tensor) in &state {
        if name.ends_with("num_batches_tracked") {
            let per_step = if c.golden.text("symmetric") == "true" { 2 } else { 1 };
            assert_eq!(numbers(tensor), [((step + 1) * per_step) as f64], "{name}");
        } else if name == "queue_ptr" {
            assert_eq!(numbers(tensor), c.golden.arrays[&at(name)], "{name}");
        } else {
            let golden_name = name.replace("sgd.", "sgd_momentum.");
            let is_buffer = name.contains(".running_");
            let class =
                if is_buffer { "running statistics" } else { name.split('.').next().unwrap() };
            c.fingerprint(class, &at(&golden_name), tensor);
        }
    }
}

/// The largest difference of each class of results, and where it is; views stored as `activations`.
fn differences(
    (case, file): (&str, &[u8]),
    activations: DType,
    device: &Device,
) -> BTreeMap<String, (f64, String)> {
    let golden = Golden::parse(file);
    let mut moco = model(&golden, device);
    let n_probes = golden.count("n_probes");
    let mut comparison = Comparison {
        golden: &golden,
        probes: vec![Vec::new(); n_probes],
        worst: BTreeMap::new(),
        compared: 0,
    };
    let (n, side) = (golden.count("batch_size"), golden.count("image_size"));
    let learning_rates: Vec<f64> = golden
        .text("learning_rates")
        .trim_matches(['[', ']'])
        .split(',')
        .map(|lr| lr.trim().parse().unwrap())
        .collect();
    for (step, lr) in learning_rates.into_iter().enumerate() {
        let view = |name: &str| {
            let dims = [n, 3, side, side];
            let doubled = golden.fill(&format!("step{step}.{name}"), &dims);
            let view = golden.tensor(doubled.into_iter().map(|v| 2.0 * v).collect(), &dims);
            view.to_dtype(activations).unwrap().to_device(device).unwrap()
        };
        let views = Batch { im_q: view("im_q"), im_k: view("im_k"), sample_indices: Vec::new() };
        let shuffle = |direction: usize| {
            let order = golden.arrays.get(&format!("step{step}.direction{direction}.shuffle"));
            let order = order.or(golden.arrays.get(&format!("step{step}.direction0.shuffle")));
            let order: Vec<u32> = order.unwrap().iter().map(|v| *v as u32).collect();
            Shuffle::new(&order).unwrap()
        };
        let output = moco.step_shuffled(&views, &[shuffle(0), shuffle(1)], lr).unwrap();
        compare_step(&mut comparison, step, &moco, &output);
    }
    let Comparison { worst, compared, .. } = comparison;
    println!("{case}: {compared} comparisons");
    for (class, (difference, name)) in &worst {
        println!("  {class:<20} {difference:.1e}  {name}");
    }
    assert!(compared > 1000, "{case}: {compared} comparisons");
    worst
}

#[track_caller]
fn check((case, file): (&str, &[u8]), tolerance: f64, device: &Device) {
    let dtype = Golden::parse(file).dtype;
    for (class, (difference, name)) in differences((case, file), dtype, device) {
        let is_second = dtype == DType::F32 && class == "second gradient";
        let tolerance = if is_second { tolerance.max(F32_SECOND_GRADIENT) } else { tolerance };
        assert!(difference <= tolerance, "{case}, {class}: {difference:.2e} in {name}");
    }
}

/// Steps with bf16 activations against PyTorch's f64: what a rounding to 8 bits in each layer leaves.
/// Gradients of batch norm are differences of near numbers and are off by tens of percent, so they and
/// what follows from them are not held to a bar here.
#[cfg(feature = "emulator")]
#[track_caller]
fn check_bf16((case, file): (&str, &[u8]), device: &Device) {
    let worst = differences((case, file), DType::BF16, device);
    for (class, tolerance) in BF16_TOLERANCES {
        let (difference, name) = &worst[class];
        assert!(*difference <= tolerance, "{case}, {class}: {difference:.2e} in {name}");
    }
}

/// A case's name and its file, which the program carries along.
macro_rules! file {
    ($case:literal) => {
        ($case, &include_bytes!(concat!("golden/step/", $case, ".safetensors"))[..])
    };
}

macro_rules! cases {
    ($($test:ident: $case:literal, $tolerance:ident;)*) => {
        $(#[test]
        fn $test() {
            check(file!($case), $tolerance, &Device::Cpu);
        })*
    };
}

cases! {
    resnet18_fc_f64: "resnet18.fc.float64", F64_TOLERANCE;
    resnet18_mlp_f64: "resnet18.mlp.float64", F64_TOLERANCE;
    resnet50_mlp_f64: "resnet50.mlp.float64", F64_TOLERANCE;
    symmetric_f64: "resnet18-cifar.fc.symmetric.float64", F64_TOLERANCE;
    resnet18_fc_f32: "resnet18.fc.float32", F32_TOLERANCE;
    resnet18_mlp_f32: "resnet18.mlp.float32", F32_TOLERANCE;
    resnet50_mlp_f32: "resnet50.mlp.float32", F32_TOLERANCE;
    symmetric_f32: "resnet18-cifar.fc.symmetric.float32", F32_TOLERANCE;
}

// ResNet-18 has this head too, and ResNet-50's blocks are above.
#[cfg(feature = "long")]
cases! {
    resnet50_fc_f64: "resnet50.fc.float64", F64_TOLERANCE;
    resnet50_fc_f32: "resnet50.fc.float32", F32_TOLERANCE;
}

#[cfg(feature = "emulator")]
#[test]
fn resnet18_mlp_bf16_emulated() {
    moco_ops::emulate(|| check_bf16(file!("resnet18.mlp.float32"), &Device::Cpu));
}

#[cfg(feature = "long")]
#[test]
fn resnet50_mlp_bf16_emulated() {
    moco_ops::emulate(|| check_bf16(file!("resnet50.mlp.float32"), &Device::Cpu));
}

/// On the first CUDA device, in f32 without TF32, and in bf16.
#[cfg(feature = "device-tests")]
mod on_device {
    use moco_ops::{ConvBackend, Precision, open_cuda};

    use super::*;

    /// cuDNN's algorithms may sum in any order, and Winograd's rounds more.
    const TOLERANCE: f64 = 1e-4;

    macro_rules! cases_on_device {
        ($($test:ident: $case:literal;)*) => {
            $(#[test]
            fn $test() {
                let device = open_cuda(0, Precision::F32, ConvBackend::Auto).unwrap();
                check(file!($case), TOLERANCE, &device);
            })*
        };
    }

    #[test]
    fn resnet50_mlp_bf16() {
        let device = open_cuda(0, Precision::Bf16, ConvBackend::Auto).unwrap();
        check_bf16(file!("resnet50.mlp.float32"), &device);
    }

    cases_on_device! {
        resnet18_fc: "resnet18.fc.float32";
        resnet18_mlp: "resnet18.mlp.float32";
        resnet50_fc: "resnet50.fc.float32";
        resnet50_mlp: "resnet50.mlp.float32";
        symmetric: "resnet18-cifar.fc.symmetric.float32";
    }
}
