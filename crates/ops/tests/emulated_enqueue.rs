//! Enqueueing on the emulated GPU: bit for bit what the CPU writes and rounding makes of it, where squares
//! of keys and channels begin and end, and where the ring does.

use candle_core::{DType, Device, Tensor};
use moco_ops::{emulate, enqueue_};

use crate::common::{assert_close, scattered};

fn at(column: u32) -> Tensor {
    Tensor::new(&[column], &Device::Cpu).unwrap()
}

/// C, K, keys of each tensor, first column.
type Case<'a> = (usize, usize, &'a [usize], u32);

const CASES: [Case<'_>; 13] = [
    (1, 1, &[1], 0),
    (3, 40, &[7], 0),
    (31, 100, &[31], 69),
    (32, 100, &[32], 80),
    (33, 100, &[33], 99),
    (128, 96, &[64], 32),
    (128, 200, &[65], 190),
    // Full rings.
    (5, 37, &[37], 0),
    (5, 37, &[37], 20),
    // The end of the ring within the first tensor, within the second, and between them.
    (9, 50, &[20, 21], 45),
    (9, 50, &[20, 21], 20),
    (9, 50, &[20, 21], 30),
    // Nothing at all in one of them.
    (4, 50, &[3, 0, 40], 12),
];

#[test]
fn rings_are_those_of_the_cpu_to_the_bit() {
    for (c, n_columns, lens, column) in CASES {
        let keys: Vec<Tensor> = (0..).zip(lens).map(|(i, n)| scattered(10 + i, &[*n, c])).collect();
        let keys: Vec<&Tensor> = keys.iter().collect();
        let expected = scattered(1, &[c, n_columns]);
        enqueue_(&expected, &keys, &at(column)).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let queue = scattered(1, &[c, n_columns]).to_dtype(dtype).unwrap();
            let (result, kernels) = emulate(|| enqueue_(&queue, &keys, &at(column)));
            result.unwrap();
            let launched = lens.iter().filter(|n| **n > 0).count();
            assert_eq!(kernels, vec![format!("enqueue_{}", dtype.as_str()); launched]);
            let what = format!("C = {c}, K = {n_columns}, {lens:?} at {column}, {dtype:?}");
            assert_close(&what, &queue, &expected.to_dtype(dtype).unwrap(), 0.0);
        }
    }
}

#[test]
fn bf16_is_the_nearest_and_even_where_two_are() {
    // In 1..2 the numbers of bf16 are 2^-7 apart.
    let ulp = 2.0_f32.powi(-7);
    let cases = [
        (1.0 + 0.5 * ulp, 1.0),
        (1.0 + 0.5001 * ulp, 1.0 + ulp),
        (1.0 + 1.5 * ulp, 1.0 + 2.0 * ulp),
        (1.0 + 1.4999 * ulp, 1.0 + ulp),
        (-1.0 - 2.5 * ulp, -1.0 - 2.0 * ulp),
        (f32::INFINITY, f32::INFINITY),
        (0.0, 0.0),
    ];
    let (keys, expected): (Vec<f32>, Vec<f32>) = cases.into_iter().unzip();
    let keys = Tensor::from_vec(keys, (1, cases.len()), &Device::Cpu).unwrap();
    let queue = Tensor::zeros((cases.len(), 1), DType::BF16, &Device::Cpu).unwrap();
    emulate(|| enqueue_(&queue, &[&keys], &at(0)).unwrap());
    let got = queue.to_dtype(DType::F32).and_then(|x| x.flatten_all()?.to_vec1::<f32>()).unwrap();
    assert_eq!(got, expected);
    let nan = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
    let queue = Tensor::zeros((1, 1), DType::BF16, &Device::Cpu).unwrap();
    emulate(|| enqueue_(&queue, &[&nan], &at(0)).unwrap());
    assert!(queue.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()[0][0].is_nan());
}

#[test]
fn other_types_have_no_kernels_and_nothing_is_changed() {
    let queue = scattered(1, &[4, 6]);
    let [keys, before] = [scattered(2, &[2, 4]), queue.copy().unwrap()];
    let of = |x: &Tensor, dtype: DType| x.to_dtype(dtype).unwrap();
    let cases = [
        (queue.clone(), of(&keys, DType::BF16), "enqueue: `keys` is BF16"),
        (queue.clone(), of(&keys, DType::F64), "enqueue: `keys` is F64"),
        (of(&queue, DType::F64), keys.clone(), "enqueue: `queue` is F64"),
    ];
    for (queue, wrong, expected) in cases {
        let (result, kernels) = emulate(|| enqueue_(&queue, &[&keys, &wrong], &at(0)));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(kernels.is_empty(), "{kernels:?}");
    }
    assert_close("queue", &queue, &before, 0.0);
}
