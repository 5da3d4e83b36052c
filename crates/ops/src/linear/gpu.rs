//! Fully connected layers: a library multiplies, kernels add biases and sum their gradients. All f32, as
//! heads are.

use candle_core::{DType, Tensor};

use super::gradients::LinearGradients;
use crate::dense::{Dense, dims2};
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Gpu, Grid, Kernel, THREADS, elements, expect_dtype, narrow, u32_of};

const OP: &str = "linear";
/// Columns that a block sums, one for each thread of a warp.
const COLUMNS: usize = 32;

/// See [`crate::linear()`].
pub(crate) fn forward(
    gpu: &dyn Gpu,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor, OpError> {
    let [x, weight, bias] = [dense("x", x)?, dense("weight", weight)?, dense("bias", bias)?];
    let y = gpu.multiply(OP, x.tensor(), &weight.tensor().t().in_op(OP)?)?;
    if y.elem_count() > 0 {
        let width = u32_of(OP, bias.tensor().elem_count())?;
        let args = [Arg::Out(&y), Arg::In(bias.tensor()), elements(&y), width];
        let grid = Grid::of_elements(gpu, y.elem_count());
        gpu.launch(OP, Kernel::new("add_bias"), grid, &args)?;
    }
    Ok(y)
}

/// See [`crate::linear_backward`].
pub(crate) fn backward(
    gpu: &dyn Gpu,
    x: &Tensor,
    weight: &Tensor,
    dy: &Tensor,
) -> Result<LinearGradients, OpError> {
    let [x, weight, dy] = [dense("x", x)?, dense("weight", weight)?, dense("dy", dy)?];
    let [x, weight, dy] = [x.tensor(), weight.tensor(), dy.tensor()];
    let [n, c] = dims2(OP, "dy", dy)?;
    let bias = gpu.alloc(OP, &[c], DType::F32)?;
    if c > 0 {
        let args = [Arg::In(dy), Arg::Out(&bias), u32_of(OP, n)?, u32_of(OP, c)?];
        let blocks = [narrow(OP, c.div_ceil(COLUMNS))?, 1];
        let grid = Grid { blocks, threads: THREADS, shared_bytes: 0 };
        gpu.launch(OP, Kernel::new("sum_rows"), grid, &args)?;
    }
    Ok(LinearGradients {
        x: gpu.multiply(OP, dy, weight)?,
        weight: gpu.multiply(OP, &dy.t().in_op(OP)?, x)?,
        bias,
    })
}

fn dense(name: &'static str, x: &Tensor) -> Result<Dense, OpError> {
    expect_dtype(OP, name, x, DType::F32)?;
    Dense::rows(OP, x)
}
