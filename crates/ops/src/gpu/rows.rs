//! Rows of features: L2 normalization and ReLU.

use candle_core::Tensor;

use super::{Arg, Gpu, Grid, Kernel, elements, expect_dtype, rows, u32_of};
use crate::error::OpError;

/// See [`crate::l2_normalize`].
pub(crate) fn l2_normalize(gpu: &dyn Gpu, x: &Tensor) -> Result<Tensor, OpError> {
    const OP: &str = "l2_normalize";
    let x = rows(OP, "x", x)?;
    let x = x.tensor();
    let [n, c] = crate::dense::dims2(OP, "x", x)?;
    let y = gpu.alloc(OP, x.dims(), x.dtype())?;
    let args = [Arg::In(x), Arg::Out(&y), u32_of(OP, n)?, u32_of(OP, c)?];
    gpu.launch(OP, Kernel::typed("l2_normalize", x), Grid::of_rows(gpu, n), &args)?;
    Ok(y)
}

/// See [`crate::l2_normalize_backward`].
pub(crate) fn l2_normalize_backward(
    gpu: &dyn Gpu,
    x: &Tensor,
    dy: &Tensor,
) -> Result<Tensor, OpError> {
    const OP: &str = "l2_normalize";
    expect_dtype(OP, "dy", dy, x.dtype())?;
    let [x, dy] = [rows(OP, "x", x)?, rows(OP, "dy", dy)?];
    let [x, dy] = [x.tensor(), dy.tensor()];
    let [n, c] = crate::dense::dims2(OP, "x", x)?;
    let dx = gpu.alloc(OP, x.dims(), x.dtype())?;
    let args = [Arg::In(x), Arg::In(dy), Arg::Out(&dx), u32_of(OP, n)?, u32_of(OP, c)?];
    gpu.launch(OP, Kernel::typed("l2_normalize_backward", x), Grid::of_rows(gpu, n), &args)?;
    Ok(dx)
}

/// See [`crate::relu`].
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
