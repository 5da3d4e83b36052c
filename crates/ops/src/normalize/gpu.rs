//! L2 normalization on a GPU.

use candle_core::Tensor;

use crate::dense::dims2;
use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, expect_dtype, rows, u32_of};

/// See [`crate::l2_normalize`].
pub(crate) fn l2_normalize(gpu: &dyn Gpu, x: &Tensor) -> Result<Tensor, OpError> {
    const OP: &str = "l2_normalize";
    let x = rows(OP, "x", x)?;
    let x = x.tensor();
    let [n, c] = dims2(OP, "x", x)?;
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
    let [n, c] = dims2(OP, "x", x)?;
    let dx = gpu.alloc(OP, x.dims(), x.dtype())?;
    let args = [Arg::In(x), Arg::In(dy), Arg::Out(&dx), u32_of(OP, n)?, u32_of(OP, c)?];
    gpu.launch(OP, Kernel::typed("l2_normalize_backward", x), Grid::of_rows(gpu, n), &args)?;
    Ok(dx)
}
