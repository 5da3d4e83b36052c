//! Whole training steps on the emulated GPU: the same launches and kernels as on a device, against the CPU.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use moco::{Batch, QueuePrecision, StepStatistics};
use moco_encoders::{Arch, HeadKind, RunningStats, Stem};
use moco_ops::emulate;

use crate::gpu_cases::{CASES, Case, LR, N, moco, numbers, views};

const STEPS: u64 = 2;
/// Many pixels for each statistic of batch norm, so that rounding is not blown up.
const BF16_CASE: Case = Case {
    arch: Arch::ResNet10,
    stem: Stem::ImageNet,
    side: 64,
    head: HeadKind::Mlp,
    symmetric: false,
    running: RunningStats::First,
    queue_precision: QueuePrecision::AsParameters,
};

struct Trained {
    statistics: Vec<StepStatistics>,
    /// Gradients of the first step, and the state after the last.
    tensors: BTreeMap<String, Tensor>,
    were_ready: bool,
}

fn train(case: &Case, parameters: DType, activations: DType, device: &Device) -> Trained {
    let mut moco = moco(case, parameters, device);
    let (mut statistics, mut tensors) = (Vec::new(), BTreeMap::new());
    let mut were_ready = true;
    for step in 0..STEPS {
        let output = moco.step(&views(case, step, activations, device), LR).unwrap();
        were_ready &= output.statistics.is_ready();
        statistics.push(output.statistics.read().unwrap());
        if step == 0 {
            tensors.extend(
                output.gradients.into_iter().map(|(name, g)| (format!("gradient.{name}"), g)),
            );
        }
    }
    tensors.extend(moco.state().unwrap());
    Trained { statistics, tensors, were_ready }
}

/// ‖a − b‖ / ‖b‖, or ‖a − b‖ where b is as good as zero.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (a, b) = (numbers(a), numbers(b));
    let errors: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    norm(&errors) / norm(&b).max(1e-6)
}

/// How far a run is from another, for each number and tensor that it gives.
fn distances(a: &Trained, b: &Trained) -> BTreeMap<String, f64> {
    let mut distances = BTreeMap::new();
    for (step, (a, b)) in a.statistics.iter().zip(&b.statistics).enumerate() {
        assert_eq!(a.global_step, b.global_step);
        distances.insert(format!("loss {step}"), (a.loss / b.loss - 1.0).abs());
        for (what, a, b) in [
            ("positive", a.positive_cosine, b.positive_cosine),
            ("negative", a.negative_cosine, b.negative_cosine),
        ] {
            distances.insert(format!("{what} cosine {step}"), (a - b).abs());
        }
        // A query whose negative is a hair behind may flip.
        assert!((a.pretext_top5 - b.pretext_top5).abs() <= 100.0 / N as f64, "step {step}");
    }
    let names = |trained: &Trained| trained.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for (name, a) in &a.tensors {
        distances.insert(name.clone(), distance(a, &b.tensors[name]));
    }
    distances
}

/// Later steps multiply the rounding of the first, on the CPU as well.
fn assert_as_close(got: &Trained, [on_cpu, exact]: [&Trained; 2], case: &Case) {
    let allowed = distances(on_cpu, exact);
    let worst = allowed.values().copied().fold(0.0, f64::max);
    for (name, error) in distances(got, exact) {
        let allowed = 4.0 * allowed[&name] + 0.1 * worst + 1e-6;
        assert!(error < allowed, "{:?} {name}: off by {error:e}, not {allowed:e}", case.arch);
    }
}

#[test]
fn f32_steps_are_as_close_to_f64_as_those_of_the_cpu() {
    let mut launched = BTreeSet::new();
    for case in &CASES {
        let exact = train(case, DType::F64, DType::F64, &Device::Cpu);
        let on_cpu = train(case, DType::F32, DType::F32, &Device::Cpu);
        let (emulated, kernels) = emulate(|| train(case, DType::F32, DType::F32, &Device::Cpu));
        launched.extend(kernels);
        assert!(on_cpu.were_ready && !emulated.were_ready);
        assert_as_close(&emulated, [&on_cpu, &exact], case);
    }
    // An operation that fell back to the CPU would be missing here.
    let expected = [
        "Forward",
        "InputGradient",
        "Product",
        "WeightGradient",
        "add_bias",
        "add_f32",
        "bn_blend",
        "bn_gradient_sums_add_relu_f32",
        "bn_gradient_sums_f32",
        "bn_gradient_sums_relu_f32",
        "bn_gradients",
        "bn_input_gradient_f32",
        "bn_input_gradient_relu_f32",
        "bn_moments_f32",
        "bn_normalize_add_relu_f32",
        "bn_normalize_f32",
        "bn_normalize_relu_f32",
        "bn_statistics",
        "ema",
        "enqueue_f32",
        "global_average_pool_backward_f32",
        "global_average_pool_f32",
        "info_nce_merge",
        "info_nce_part_f32",
        "l2_normalize_backward_f32",
        "l2_normalize_f32",
        "max_pool_backward_f32",
        "max_pool_f32",
        "relu_backward_f32",
        "relu_f32",
        "select_rows",
        "sgd",
        "sum_rows",
        "weight_from_channels_last_f32",
        "weight_to_channels_last_f32",
    ];
    assert_eq!(launched.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Gradients of the first step where images and weights of convolutions are rounded to bf16.
fn gradients_of_rounded(case: &Case) -> BTreeMap<String, Tensor> {
    let round = |x: &Tensor| x.to_dtype(DType::BF16).and_then(|y| y.to_dtype(DType::F32)).unwrap();
    let mut moco = moco(case, DType::F32, &Device::Cpu);
    let mut state = moco.state().unwrap();
    for (_, weight) in state.iter_mut().filter(|(_, tensor)| tensor.rank() == 4) {
        *weight = round(weight);
    }
    moco.load_state(&state, 0).unwrap();
    let Batch { im_q, im_k, .. } = views(case, 0, DType::F32, &Device::Cpu);
    let views = Batch { im_q: round(&im_q), im_k: round(&im_k), sample_indices: Vec::new() };
    let gradients = moco.step(&views, LR).unwrap().gradients;
    gradients.into_iter().map(|(name, g)| (format!("gradient.{name}"), g)).collect()
}

#[test]
fn bf16_rounds_activations_and_nothing_else() {
    let case = &BF16_CASE;
    let on_cpu = train(case, DType::F32, DType::F32, &Device::Cpu);
    let (emulated, kernels) = emulate(|| train(case, DType::F32, DType::BF16, &Device::Cpu));
    let launched: BTreeSet<String> = kernels.into_iter().collect();
    // Batch norm's backward takes differences of near numbers, so that gradients move by tens of percent
    // where images and weights are rounded once and all else is f32; the roundings between layers may add
    // as much again.
    let rounded = gradients_of_rounded(case);
    let mean = |gradients: &BTreeMap<String, Tensor>| {
        let distances =
            rounded.keys().map(|name| distance(&gradients[name], &on_cpu.tensors[name]));
        distances.sum::<f64>() / rounded.len() as f64
    };
    let (got, once) = (mean(&emulated.tensors), mean(&rounded));
    assert!(got < 2.5 * once && once < 0.3, "{got} and {once}");
    for (name, error) in distances(&emulated, &on_cpu) {
        let is_number = name.starts_with("loss") || name.contains("cosine");
        let is_state = name == "queue" || name.contains("running_");
        assert!(!(is_number || is_state) || error < 0.05, "{name}: off by {error}");
    }
    for (name, tensor) in &on_cpu.tensors {
        assert_eq!(emulated.tensors[name].dtype(), tensor.dtype(), "{name}");
    }
    // The head and what follows it are f32.
    for kernel in ["l2_normalize_f32", "relu_f32", "info_nce_part_f32", "sgd", "bn_moments_bf16"] {
        assert!(launched.contains(kernel), "{launched:?}");
    }
    assert!(!launched.contains("bn_moments_f32") && !launched.contains("l2_normalize_bf16"));
}

/// The same keys in half the memory: what is computed with them moves by their rounding.
#[test]
fn a_queue_of_bf16_rounds_keys_and_nothing_else() {
    let [wide, narrow] = [QueuePrecision::AsParameters, QueuePrecision::Bf16].map(|precision| {
        let case = Case { queue_precision: precision, ..BF16_CASE };
        emulate(|| train(&case, DType::F32, DType::F32, &Device::Cpu)).0
    });
    for (name, tensor) in &narrow.tensors {
        let is_queue = name == "queue";
        let expected = if is_queue { DType::BF16 } else { wide.tensors[name].dtype() };
        assert_eq!(tensor.dtype(), expected, "{name}");
    }
    let rounded = wide.tensors["queue"].to_dtype(DType::BF16).unwrap();
    // The first step's keys do not depend on the queue.
    let of_first_step = |queue: &Tensor| numbers(&queue.narrow(1, 0, N).unwrap());
    assert_eq!(of_first_step(&narrow.tensors["queue"]), of_first_step(&rounded));
    for (name, error) in distances(&narrow, &wide) {
        let is_number = name.starts_with("loss") || name.contains("cosine");
        assert!(!is_number || error < 2e-3, "{name}: off by {error}");
    }
    assert_ne!(narrow.statistics[0].loss, wide.statistics[0].loss);
}

#[test]
fn a_queue_of_another_precision_is_refused_by_name() {
    let [mut wide, narrow] =
        [QueuePrecision::AsParameters, QueuePrecision::Bf16].map(|queue_precision| {
            let case = Case { queue_precision, ..BF16_CASE };
            moco(&case, DType::F32, &Device::Cpu)
        });
    let error = wide.load_state(&narrow.state().unwrap(), 0).unwrap_err().to_string();
    assert!(error.contains("`queue`") && error.contains("BF16"), "{error}");
}

/// A device continues where a CPU notices at once; the loss is reported when it is read.
#[test]
fn a_loss_that_is_not_finite_is_reported_when_it_is_read() {
    let case = &CASES[0];
    let mut moco = moco(case, DType::F32, &Device::Cpu);
    let Batch { im_q, im_k, .. } = views(case, 0, DType::F32, &Device::Cpu);
    let views = Batch { im_q: (im_q * f64::NAN).unwrap(), im_k, sample_indices: Vec::new() };
    let (output, _) = emulate(|| moco.step(&views, 0.1).unwrap());
    let error = output.statistics.read().unwrap_err().to_string();
    assert!(error.contains("NaN at step 0") && error.contains("saved before"), "{error}");
}

/// With tensors in the memory of the first CUDA device.
#[cfg(feature = "device-tests")]
mod on_device {
    use moco::Moco;
    use moco_ops::{ConvBackend, ImageUpload, Precision, normalize_images, open_cuda};

    use super::*;

    #[test]
    fn f32_steps_are_as_close_to_f64_as_those_of_the_cpu() {
        let device = open_cuda(0, Precision::F32, ConvBackend::Auto).unwrap();
        for case in &CASES {
            let exact = train(case, DType::F64, DType::F64, &Device::Cpu);
            let on_cpu = train(case, DType::F32, DType::F32, &Device::Cpu);
            let got = train(case, DType::F32, DType::F32, &device);
            assert!(!got.were_ready);
            assert_as_close(&got, [&on_cpu, &exact], case);
        }
    }

    /// Also after the state went through the host, as in a checkpoint.
    #[test]
    fn a_step_that_is_repeated_leaves_the_same_bits() {
        let device = open_cuda(0, Precision::Bf16, ConvBackend::Auto).unwrap();
        for case in &CASES {
            let bits = |moco: &Moco| -> Vec<Vec<f64>> {
                moco.state().unwrap().values().map(numbers).collect()
            };
            let step = |moco: &mut Moco, step| {
                moco.step(&views(case, step, DType::BF16, &device), LR).unwrap();
            };
            let mut whole = moco(case, DType::F32, &device);
            (0..4).for_each(|i| step(&mut whole, i));
            let mut first = moco(case, DType::F32, &device);
            (0..2).for_each(|i| step(&mut first, i));
            let state = first.state().unwrap();
            let saved = state
                .into_iter()
                .map(|(name, tensor)| (name, tensor.to_device(&Device::Cpu).unwrap()))
                .collect();
            let mut second = moco(case, DType::F32, &device);
            second.load_state(&saved, 2).unwrap();
            (2..4).for_each(|i| step(&mut second, i));
            assert_eq!(bits(&second), bits(&whole), "{:?}", case.arch);
        }
    }

    #[test]
    fn uploaded_images_are_those_of_the_cpu() {
        let device = open_cuda(0, Precision::F32, ConvBackend::Auto).unwrap();
        let [mean, std] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
        let upload = ImageUpload::new(&device, [mean, std], DType::F32).unwrap();
        // More under way than buffers at first, in another order than they came.
        for round in 0..4_u8 {
            let images =
                |i: u8| (0..2 * 33 * 31 * 3).map(|j| (j % 251) as u8 ^ i).collect::<Vec<_>>();
            let arriving: Vec<_> = (0..3)
                .map(|i| upload.start(images(round * 3 + i), [2, 33, 31], Vec::new()).unwrap())
                .collect();
            for (i, arriving) in (0..3).zip(arriving) {
                let got = upload.finish(arriving).unwrap();
                let pixels = Tensor::from_vec(images(round * 3 + i), (2, 33, 31, 3), &Device::Cpu);
                let expected = normalize_images(&pixels.unwrap(), mean, std, DType::F32).unwrap();
                assert!(distance(&got, &expected) < 1e-6);
            }
        }
    }
}
