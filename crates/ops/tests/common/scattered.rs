//! Numbers for tests.

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
