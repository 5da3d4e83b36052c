//! ReLU on a GPU.

use candle_core::Tensor;

use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, elements, expect_dtype, rows};

/// See [`crate::relu()`].
pub(crate) fn relu(gpu: &dyn Gpu, x: &Tensor) -> Result<Tensor, OpError> {
    const OP: &str = "relu";
    let x = rows(OP, "x", x)?;
    let x = x.tensor();
    let y = gpu.alloc(OP, x.dims(), x.dtype())?;
    let args = [Arg::In(x), Arg::Out(&y), elements(x)];
    gpu.launch(OP, Kernel::typed("relu", x), Grid::of_elements(gpu, x.elem_count()), &args)?;
    Ok(y)
}

/// See [`crate::relu_backward`].
pub(crate) fn relu_backward(gpu: &dyn Gpu, y: &Tensor, dy: &Tensor) -> Result<Tensor, OpError> {
    const OP: &str = "relu";
    expect_dtype(OP, "dy", dy, y.dtype())?;
    let [y, dy] = [rows(OP, "y", y)?, rows(OP, "dy", dy)?];
    let [y, dy] = [y.tensor(), dy.tensor()];
    let dx = gpu.alloc(OP, y.dims(), y.dtype())?;
    let args = [Arg::In(y), Arg::In(dy), Arg::Out(&dx), elements(y)];
    let grid = Grid::of_elements(gpu, y.elem_count());
    gpu.launch(OP, Kernel::typed("relu_backward", y), grid, &args)?;
    Ok(dx)
}
