//! Convolutions on a GPU: a library computes them; here is how weights change between the parameters' order
//! and the library's.

use candle_core::{DType, Tensor};

use super::geometry::Geometry;
use crate::dense::expect_shape;
use crate::error::{InOp, OpError};
use crate::gpu::convolution::Direction;
use crate::gpu::{Arg, Convolution, Gpu, Grid, Kernel, channels_last, expect_dtype, rows, u32_of};

/// See [`crate::conv2d`].
pub(crate) fn forward(
    gpu: &dyn Gpu,
    x: &Tensor,
    weight: &Tensor,
    geometry: Geometry,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d";
    let x = channels_last(OP, "x", x)?;
    let dtype = x.tensor().dtype();
    let weight = library_weight(gpu, OP, weight, dtype)?;
    let convolution = Convolution { direction: Direction::Forward, geometry, dtype };
    let y = gpu.convolve(OP, &convolution, x.tensor(), &weight)?;
    y.permute((0, 3, 1, 2)).in_op(OP)
}

/// See [`crate::conv2d_input_gradient`].
pub(crate) fn input_gradient(
    gpu: &dyn Gpu,
    weight: &Tensor,
    dy: &Tensor,
    geometry: Geometry,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d_input_gradient";
    let dy = channels_last(OP, "dy", dy)?;
    let dtype = dy.tensor().dtype();
    let weight = library_weight(gpu, OP, weight, dtype)?;
    let convolution = Convolution { direction: Direction::InputGradient, geometry, dtype };
    let dx = gpu.convolve(OP, &convolution, &weight, dy.tensor())?;
    dx.permute((0, 3, 1, 2)).in_op(OP)
}

/// See [`crate::conv2d_weight_gradient`]; always f32, as parameters are.
pub(crate) fn weight_gradient(
    gpu: &dyn Gpu,
    x: &Tensor,
    dy: &Tensor,
    geometry: Geometry,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d_weight_gradient";
    expect_dtype(OP, "dy", dy, x.dtype())?;
    let [x, dy] = [channels_last(OP, "x", x)?, channels_last(OP, "dy", dy)?];
    let dtype = x.tensor().dtype();
    let convolution = Convolution { direction: Direction::WeightGradient, geometry, dtype };
    let dw = gpu.convolve(OP, &convolution, x.tensor(), dy.tensor())?;
    let Geometry { co, k, .. } = geometry;
    let (c, taps) = (geometry.c_group(), k * k);
    let out = gpu.alloc(OP, &[co, c, k, k], DType::F32)?;
    reorder(gpu, OP, Kernel::typed("weight_from_channels_last", &dw), [&dw, &out], [co, taps, c])?;
    Ok(out)
}

/// Weights `[C_out, C/groups, K, K]` of f32 as the library takes them.
fn library_weight(
    gpu: &dyn Gpu,
    op: &'static str,
    weight: &Tensor,
    dtype: DType,
) -> Result<Tensor, OpError> {
    expect_dtype(op, "weight", weight, DType::F32)?;
    let weight = rows(op, "weight", weight)?;
    let weight = weight.tensor();
    let [co, c, k, k_width] = crate::dense::dims4(op, "weight", weight)?;
    expect_shape(op, "weight", weight, &[co, c, k, k])?;
    let out = gpu.alloc(op, &[co, k, k_width, c], dtype)?;
    reorder(
        gpu,
        op,
        Kernel::typed("weight_to_channels_last", &out),
        [weight, &out],
        [co, k * k, c],
    )?;
    Ok(out)
}

fn reorder(
    gpu: &dyn Gpu,
    op: &'static str,
    kernel: Kernel,
    [from, to]: [&Tensor; 2],
    [co, taps, c]: [usize; 3],
) -> Result<(), OpError> {
    let n = co * taps * c;
    if n == 0 {
        return Ok(());
    }
    let args = [Arg::In(from), Arg::Out(to), u32_of(op, n)?, u32_of(op, taps)?, u32_of(op, c)?];
    gpu.launch(op, kernel, Grid::of_elements(gpu, n), &args)
}
