//! Two-dimensional convolution and its two gradients.

mod correlate;
pub(crate) mod cpu;
mod gather;
mod geometry;
mod gpu;
mod packed;
mod reorder;
mod shared;
mod spec;
mod weight_gradient;

use candle_core::Tensor;

use self::cpu::{forward, gradient_of_input, gradient_of_weight};
use crate::backend::on_gpu;
use crate::dense::{by_dtype, dims4, expect_shape, four};
use crate::error::OpError;

pub(crate) use self::geometry::Geometry;
pub use self::spec::Conv2dSpec;

const OP: &str = "conv2d";

/// Convolves `x` `[N, C, H, W]` with `weight` `[C_out, C/groups, K, K]`, f32 or f64; gives
/// `[N, C_out, H_out, W_out]`, channels last in memory (PyTorch `conv2d` without bias).
///
/// # Errors
/// If the shapes do not fit or the numbers are neither f32 nor f64.
pub fn conv2d(x: &Tensor, weight: &Tensor, spec: Conv2dSpec) -> Result<Tensor, OpError> {
    let geometry = Geometry::new(OP, dims4(OP, "x", x)?, dims4(OP, "weight", weight)?, spec)?;
    on_gpu!(OP, x, gpu::forward, x, weight, geometry);
    by_dtype!(OP, x, forward(x, weight, geometry))
}

/// The gradient of [`conv2d`]'s input, whose shape is `x_dims`, from the gradient `dy`
/// `[N, C_out, H_out, W_out]` of its output; the first layer of an encoder does not need it.
///
/// # Errors
/// If the shapes do not fit or the numbers are neither f32 nor f64.
pub fn conv2d_input_gradient(
    x_dims: &[usize],
    weight: &Tensor,
    dy: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d_input_gradient";
    let g = Geometry::new(OP, four(OP, "x", x_dims)?, dims4(OP, "weight", weight)?, spec)?;
    expect_shape(OP, "dy", dy, &[g.n, g.co, g.ho, g.wo])?;
    on_gpu!(OP, dy, gpu::input_gradient, weight, dy, g);
    by_dtype!(OP, dy, gradient_of_input(weight, dy, g))
}

/// The gradient of [`conv2d`]'s weight, whose shape is `weight_dims`, from its input `x` and the gradient
/// `dy` `[N, C_out, H_out, W_out]` of its output.
///
/// # Errors
/// If the shapes do not fit or the numbers are neither f32 nor f64.
pub fn conv2d_weight_gradient(
    x: &Tensor,
    weight_dims: &[usize],
    dy: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d_weight_gradient";
    let g = Geometry::new(OP, dims4(OP, "x", x)?, four(OP, "weight", weight_dims)?, spec)?;
    expect_shape(OP, "dy", dy, &[g.n, g.co, g.ho, g.wo])?;
    on_gpu!(OP, x, gpu::weight_gradient, x, dy, g);
    by_dtype!(OP, x, gradient_of_weight(x, dy, g))
}
