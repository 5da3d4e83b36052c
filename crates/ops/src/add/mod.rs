//! Sums of two tensors.

mod gpu;

use candle_core::Tensor;

use crate::backend::on_gpu;
use crate::dense::{Dense, by_dtype, dims4, expect_shape, lend, tensor};
use crate::elementwise::map;
use crate::error::{InOp, OpError};
use crate::simd::Float;

const OP: &str = "add";

/// `a + b` for two tensors of one shape: both contiguous, or `[N, C, H, W]`, which are taken with channels
/// last in memory. candle's own addition walks strided tensors one by one.
///
/// # Errors
/// If the shapes differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    expect_shape(OP, "b", b, a.dims())?;
    if a.is_contiguous() && b.is_contiguous() {
        return flat(a, b);
    }
    dims4(OP, "a", a)?;
    let [a, b] = [Dense::channels_last(OP, a)?, Dense::channels_last(OP, b)?];
    flat(a.tensor(), b.tensor())?.permute((0, 3, 1, 2)).in_op(OP)
}

fn flat(a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    on_gpu!(OP, a, gpu::add, a, b);
    by_dtype!(OP, a, sum(a, b))
}

fn sum<T: Float>(x: &Tensor, y: &Tensor) -> Result<Tensor, OpError> {
    let (a, b) = (Dense::rows(OP, x)?, Dense::rows(OP, y)?);
    let sum = lend!(OP, T, [a, b] => map([a, b], |[a, b]| a + b));
    tensor::<T>(OP, sum, x.dims())
}
