//! Keys on their way into a queue on the emulated GPU, against the CPU.
#![cfg(feature = "emulator")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, scattered};
use moco_ops::{emulate, enqueue_};

fn ptr(at: u32) -> Tensor {
    Tensor::new(&[at], &Device::Cpu).unwrap()
}

/// Channels, columns, the first column, and the keys of each tensor: around the squares of 32 that blocks
/// turn, with the end of the ring within a tensor, between two, and behind all.
const CASES: [(usize, usize, u32, &[usize]); 7] = [
    (1, 1, 0, &[1]),
    (3, 7, 5, &[4]),
    (31, 40, 33, &[33]),
    (33, 64, 40, &[24, 8]),
    (128, 100, 0, &[32, 65]),
    (65, 70, 69, &[0, 1, 30]),
    (2, 96, 95, &[96]),
];

#[test]
fn the_ring_is_that_of_the_cpu() {
    for (c, queue_size, at, sizes) in CASES {
        let keys: Vec<Tensor> =
            (10..).zip(sizes).map(|(salt, n)| scattered(salt, &[*n, c])).collect();
        let keys: Vec<&Tensor> = keys.iter().collect();
        let before = scattered(1, &[c, queue_size]);
        let expected = before.copy().unwrap();
        enqueue_(&expected, &keys, &ptr(at)).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let queue = before.to_dtype(dtype).unwrap().copy().unwrap();
            let ((), kernels) = emulate(|| enqueue_(&queue, &keys, &ptr(at)).unwrap());
            let launches = sizes.iter().filter(|n| **n > 0).count();
            assert_eq!(kernels, vec![format!("enqueue_{}", dtype.as_str()); launches]);
            // Rounding to nearest is what candle does too.
            let expected = expected.to_dtype(dtype).unwrap();
            assert_close(&format!("{c} {queue_size} {at} {dtype:?}"), &queue, &expected, 0.0);
        }
    }
}

#[test]
fn keys_of_other_types_are_refused() {
    let queue = scattered(1, &[4, 5]);
    let keys = scattered(2, &[2, 4]).to_dtype(DType::BF16).unwrap();
    let (result, kernels) = emulate(|| enqueue_(&queue, &[&keys], &ptr(0)));
    let message = result.unwrap_err().to_string();
    assert!(message.contains("`keys` is BF16"), "{message}");
    assert!(kernels.is_empty());
}
