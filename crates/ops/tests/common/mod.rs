//! What the tests of operations share.

use candle_core::{DType, Device, Tensor};

/// Numbers in −1..1 without a pattern that rows or channels share, f32.
pub(crate) fn scattered(salt: u64, dims: &[usize]) -> Tensor {
    let numbers = (0..dims.iter().product::<usize>() as u64).map(|i| {
        let mixed = (i + (salt << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64
    });
    let scaled: Vec<f64> = numbers.map(|v| v / f64::from(1 << 23) - 1.0).collect();
    Tensor::from_vec(scaled, dims, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap()
}

/// Fails unless all numbers differ by at most the tolerance, relative to 1 or to larger numbers; NaN
/// equals nothing.
pub(crate) fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let numbers = |x: &Tensor| -> Vec<f64> {
        x.to_dtype(DType::F64).and_then(|x| x.flatten_all()?.to_vec1()).unwrap()
    };
    for (i, (got, expected)) in numbers(got).into_iter().zip(numbers(expected)).enumerate() {
        let close = (got - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(close, "{what}, number {i}: {got}, expected {expected}");
    }
}
