//! Fully connected layers.

mod gpu;
mod gradients;

use candle_core::Tensor;

pub use self::gradients::LinearGradients;
use crate::backend::on_gpu;
use crate::dense::{dims2, expect_shape};
use crate::error::{InOp, OpError};

const OP: &str = "linear";

/// `x·Wᵀ + b` for `x` `[N, C_in]`, `weight` `[C_out, C_in]`, `bias` `[C_out]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, OpError> {
    let [_, c_in] = dims2(OP, "x", x)?;
    let [c_out, _] = dims2(OP, "weight", weight)?;
    expect_shape(OP, "weight", weight, &[c_out, c_in])?;
    expect_shape(OP, "bias", bias, &[c_out])?;
    on_gpu!(OP, x, gpu::forward, x, weight, bias);
    weight.t().and_then(|w| x.matmul(&w)).and_then(|y| y.broadcast_add(bias)).in_op(OP)
}

/// The gradients of [`linear`] from the gradient `dy` `[N, C_out]` of its output.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_backward(
    x: &Tensor,
    weight: &Tensor,
    dy: &Tensor,
) -> Result<LinearGradients, OpError> {
    let [n, c_in] = dims2(OP, "x", x)?;
    let [c_out, _] = dims2(OP, "weight", weight)?;
    expect_shape(OP, "weight", weight, &[c_out, c_in])?;
    expect_shape(OP, "dy", dy, &[n, c_out])?;
    on_gpu!(OP, x, gpu::backward, x, weight, dy);
    Ok(LinearGradients {
        x: dy.matmul(weight).in_op(OP)?,
        weight: dy.t().and_then(|dy| dy.matmul(x)).in_op(OP)?,
        bias: dy.sum(0).in_op(OP)?,
    })
}
