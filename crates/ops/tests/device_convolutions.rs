//! Convolutions of a CUDA device through each of cuDNN's interfaces, against those of the CPU.

use candle_core::{DType, Device, Tensor};
use moco_ops::{
    Conv2dSpec, ConvBackend, OpError, Precision, Recording, conv2d, conv2d_input_gradient,
    conv2d_weight_gradient, convolution_choices, copy_, open_cuda, prefer_convolution_choices,
};

use crate::common::{assert_close, scattered};

const BACKENDS: [ConvBackend; 2] = [ConvBackend::Legacy, ConvBackend::Graph];

/// How far results may differ: sums of hundreds of products in another order, in Winograd's way for some, of
/// numbers with 24, 11 or 8 bits.
const PRECISIONS: [(Precision, f64); 3] =
    [(Precision::F32, 1e-4), (Precision::Tf32, 1e-2), (Precision::Bf16, 5e-2)];

/// x, weight and how it moves: each shape of a ResNet, odd ones, and groups.
fn cases() -> [([usize; 4], [usize; 4], Conv2dSpec); 6] {
    [
        ([4, 3, 32, 32], [64, 3, 7, 7], Conv2dSpec::new(2, 3)),
        ([4, 64, 14, 14], [256, 64, 1, 1], Conv2dSpec::new(1, 0)),
        ([4, 64, 14, 14], [64, 64, 3, 3], Conv2dSpec::new(1, 1)),
        ([4, 64, 14, 14], [128, 64, 3, 3], Conv2dSpec::new(2, 1)),
        ([2, 16, 9, 7], [32, 16, 3, 3], Conv2dSpec { dilation: 2, ..Conv2dSpec::new(1, 2) }),
        ([2, 32, 9, 7], [32, 16, 3, 3], Conv2dSpec { groups: 2, ..Conv2dSpec::new(1, 1) }),
    ]
}

/// y, dx and dw.
fn all([x, w, dy]: [&Tensor; 3], spec: Conv2dSpec) -> Result<[Tensor; 3], OpError> {
    Ok([
        conv2d(x, w, spec)?,
        conv2d_input_gradient(x.dims(), w, dy, spec)?,
        conv2d_weight_gradient(x, w.dims(), dy, spec)?,
    ])
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A result's numbers in the order of memory: those of a gradient of a weight in their order, others with
/// channels last.
fn in_memory(x: &Tensor) -> Tensor {
    let x = if x.is_contiguous() { x.clone() } else { x.permute((0, 2, 3, 1)).unwrap() };
    x.flatten_all().unwrap()
}

/// Images on a device, channels last in memory.
fn on_device(x: &Tensor, dtype: DType, device: &Device) -> Tensor {
    let x = x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    let x = x.to_device(device).unwrap().to_dtype(dtype).unwrap();
    x.permute((0, 3, 1, 2)).unwrap()
}

#[test]
fn both_interfaces_compute_what_the_cpu_does_and_the_same_bits_again() {
    for (precision, tolerance) in PRECISIONS {
        for backend in BACKENDS {
            let device = open_cuda(0, precision, backend).unwrap();
            let dtype = precision.activations();
            for (x_dims, w_dims, spec) in cases() {
                let (x, w) = (scattered(1, &x_dims), scattered(2, &w_dims));
                let dy = scattered(3, conv2d(&x, &w, spec).unwrap().dims());
                let expected = all([&x, &w, &dy], spec).unwrap();
                let x = on_device(&x, dtype, &device);
                let dy = on_device(&dy, dtype, &device);
                let w = w.to_device(&device).unwrap();
                let got = all([&x, &w, &dy], spec).unwrap();
                let again = all([&x, &w, &dy], spec).unwrap();
                for ((got, again), expected) in got.iter().zip(&again).zip(&expected) {
                    let what = format!("{precision:?} {backend:?} {w_dims:?}");
                    let host = got.to_device(&Device::Cpu).unwrap();
                    let host = host.to_dtype(DType::F32).unwrap();
                    assert_close(&what, &host, expected, tolerance);
                    assert_eq!(numbers(got), numbers(again), "{what}");
                }
            }
        }
    }
}

#[test]
fn both_interfaces_can_be_recorded() {
    for backend in BACKENDS {
        let device = open_cuda(0, Precision::Bf16, backend).unwrap();
        for (x_dims, w_dims, spec) in cases() {
            let (x, w) = (scattered(1, &x_dims), scattered(2, &w_dims));
            let dy = scattered(3, conv2d(&x, &w, spec).unwrap().dims());
            let x = on_device(&x, DType::BF16, &device);
            let dy = on_device(&dy, DType::BF16, &device);
            let w = w.to_device(&device).unwrap();
            let expected = all([&x, &w, &dy], spec).unwrap();
            let outs = expected.each_ref().map(|out| in_memory(out).zeros_like().unwrap());
            let recording = Recording::new(&device, || {
                for (out, result) in outs.iter().zip(all([&x, &w, &dy], spec)?) {
                    copy_(out, &in_memory(&result))?;
                }
                Ok::<_, OpError>(())
            });
            let recording = recording.unwrap();
            for _ in 0..2 {
                recording.repeat().unwrap();
            }
            for (out, expected) in outs.iter().zip(&expected) {
                assert_eq!(numbers(out), numbers(&in_memory(expected)), "{backend:?} {w_dims:?}");
            }
        }
    }
}

#[test]
fn choices_are_taken_again_and_those_of_the_other_interface_are_not() {
    let (x_dims, w_dims, spec) = ([4, 64, 14, 14], [64, 64, 3, 3], Conv2dSpec::new(1, 1));
    let chosen = |backend, before: Option<&str>| {
        let device = open_cuda(0, Precision::Bf16, backend).unwrap();
        let outdated = before.map(|text| prefer_convolution_choices(&device, text).unwrap());
        let x = on_device(&scattered(1, &x_dims), DType::BF16, &device);
        let w = scattered(2, &w_dims).to_device(&device).unwrap();
        conv2d(&x, &w, spec).unwrap();
        (convolution_choices(&device).unwrap().unwrap(), outdated.flatten())
    };
    let [legacy, graph] = BACKENDS.map(|backend| chosen(backend, None).0);
    assert!(legacy.starts_with("chosen by the legacy interface of cuDNN "), "{legacy}");
    assert!(graph.starts_with("chosen by the graph interface of cuDNN "), "{graph}");
    assert!(graph.contains(": engine "), "{graph}");
    assert_eq!(chosen(ConvBackend::Legacy, Some(&legacy)), (legacy.clone(), None));
    assert_eq!(chosen(ConvBackend::Graph, Some(&graph)), (graph.clone(), None));
    let outdated = chosen(ConvBackend::Graph, Some(&legacy)).1.unwrap();
    let header = |text: &str| text.lines().next().unwrap().replace("chosen by ", "");
    assert_eq!((outdated.chosen_by, outdated.here), (header(&legacy), header(&graph)));
}
