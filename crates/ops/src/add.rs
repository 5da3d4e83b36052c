//! The sum of two activations.

use candle_core::Tensor;

use crate::dense::{Dense, by_dtype, channels_last, dims4, expect_shape, lend};
use crate::elementwise::map;
use crate::error::OpError;
use crate::gpu::on_gpu;
use crate::simd::Float;

const OP: &str = "add";

/// `a + b` for two `[N, C, H, W]`; candle's own addition walks strided tensors one by one.
///
/// # Errors
/// If the shapes differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    let dims = dims4(OP, "a", a)?;
    expect_shape(OP, "b", b, &dims)?;
    on_gpu!(OP, a, activations::add, a, b);
    by_dtype!(OP, a, sum(a, b, dims))
}

fn sum<T: Float>(a: &Tensor, b: &Tensor, dims: [usize; 4]) -> Result<Tensor, OpError> {
    let (a, b) = (Dense::channels_last(OP, a)?, Dense::channels_last(OP, b)?);
    let sum = lend!(OP, T, [a, b] => map([a, b], |[a, b]| a + b));
    channels_last::<T>(OP, sum, dims)
}
