//! Sums on a GPU.

use candle_core::Tensor;

use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, elements, expect_dtype, rows, vectors};

/// See [`crate::add()`]; both contiguous.
pub(crate) fn add(gpu: &dyn Gpu, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    const OP: &str = "add";
    expect_dtype(OP, "b", b, a.dtype())?;
    let [a, b] = [rows(OP, "a", a)?, rows(OP, "b", b)?];
    let [a, b] = [a.tensor(), b.tensor()];
    let y = gpu.alloc(OP, a.dims(), a.dtype())?;
    if y.elem_count() > 0 {
        let args = [Arg::In(a), Arg::In(b), Arg::Out(&y), elements(&y)];
        gpu.launch(OP, Kernel::typed("add", &y), Grid::of_elements(gpu, vectors(&y)), &args)?;
    }
    Ok(y)
}
