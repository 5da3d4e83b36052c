//! ReLU for any shape.

mod gpu;

use candle_core::Tensor;

use crate::backend::on_gpu;
use crate::dense::{Dense, by_dtype, expect_shape, lend, tensor};
use crate::elementwise::map;
use crate::error::OpError;
use crate::simd::Float;

/// `max(x, 0)` for any shape; NaN stays NaN, where candle's own ReLU turns it into 0.
///
/// # Errors
/// If `x` is neither f32 nor f64.
pub fn relu(x: &Tensor) -> Result<Tensor, OpError> {
    on_gpu!("relu", x, gpu::relu, x);
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
    on_gpu!("relu", y, gpu::relu_backward, y, dy);
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
