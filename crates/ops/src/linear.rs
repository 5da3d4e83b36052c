//! Fully connected layers and the ReLU between them.

use candle_core::Tensor;

use crate::dense::{Dense, by_dtype, dims2, expect_shape, lend, tensor};
use crate::elementwise::map;
use crate::error::{InOp, OpError};
use crate::gpu::on_gpu;
use crate::simd::Float;

const OP: &str = "linear";

/// Gradients of a linear layer.
#[derive(Debug)]
pub struct LinearGradients {
    /// Of the input `[N, C_in]`.
    pub x: Tensor,
    /// Of the weight `[C_out, C_in]`.
    pub weight: Tensor,
    /// Of the bias `[C_out]`.
    pub bias: Tensor,
}

/// `x·Wᵀ + b` for `x` `[N, C_in]`, `weight` `[C_out, C_in]`, `bias` `[C_out]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, OpError> {
    let [_, c_in] = dims2(OP, "x", x)?;
    let [c_out, _] = dims2(OP, "weight", weight)?;
    expect_shape(OP, "weight", weight, &[c_out, c_in])?;
    expect_shape(OP, "bias", bias, &[c_out])?;
    on_gpu!(OP, x, linear::forward, x, weight, bias);
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
    on_gpu!(OP, x, linear::backward, x, weight, dy);
    Ok(LinearGradients {
        x: dy.matmul(weight).in_op(OP)?,
        weight: dy.t().and_then(|dy| dy.matmul(x)).in_op(OP)?,
        bias: dy.sum(0).in_op(OP)?,
    })
}

/// `max(x, 0)` for any shape; NaN stays NaN, where candle's own ReLU turns it into 0.
///
/// # Errors
/// If `x` is neither f32 nor f64.
pub fn relu(x: &Tensor) -> Result<Tensor, OpError> {
    on_gpu!("relu", x, rows::relu, x);
    by_dtype!("relu", x, rectified(x))
}

fn rectified<T: Float>(x: &Tensor) -> Result<Tensor, OpError> {
    let dims = x.dims().to_vec();
    let x = Dense::rows("relu", x)?;
    let y = lend!("relu", T, [x] => map([x], |[x]| x.relu()));
    tensor::<T>("relu", y, dims)
}

/// The gradient of [`relu`]'s input from its output `y` and the gradient `dy` of its output; 0 where
/// `y` is 0, as in PyTorch.
///
/// # Errors
/// If the shapes or types differ.
pub fn relu_backward(y: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    expect_shape("relu", "dy", dy, y.dims())?;
    on_gpu!("relu", y, rows::relu_backward, y, dy);
    by_dtype!("relu", y, passed(y, dy))
}

fn passed<T: Float>(y: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    let dims = y.dims().to_vec();
    let (y, dy) = (Dense::rows("relu", y)?, Dense::rows("relu", dy)?);
    let dx = lend!("relu", T, [y, dy] => {
        map([y, dy], |[y, dy]| if y > T::zero() { dy } else { T::zero() })
    });
    tensor::<T>("relu", dx, dims)
}
