//! Activations element by element: sums, and images on their way in.

use candle_core::{DType, Tensor};

use super::{Arg, Gpu, Grid, Kernel, elements, expect_dtype, rows, vectors};
use crate::dense::{Dense, dims4};
use crate::error::{InOp, OpError};

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

/// See [`crate::normalize_images`].
pub(crate) fn normalize_images(
    gpu: &dyn Gpu,
    pixels: &Tensor,
    [mean, std]: [[f32; 3]; 2],
    dtype: DType,
) -> Result<Tensor, OpError> {
    const OP: &str = "normalize_images";
    if !matches!(dtype, DType::F32 | DType::BF16) {
        return Err(OpError::DType { op: OP, tensor: "dtype", got: dtype });
    }
    let pixels = Dense::rows(OP, pixels)?;
    let pixels = pixels.tensor();
    let y = gpu.alloc(OP, &dims4(OP, "pixels", pixels)?, dtype)?;
    if y.elem_count() > 0 {
        let mut args = vec![Arg::In(pixels), Arg::Out(&y), elements(&y)];
        args.extend(mean.into_iter().chain(std).map(Arg::F32));
        let grid = Grid::of_elements(gpu, vectors(&y));
        gpu.launch(OP, Kernel::typed("normalize_images", &y), grid, &args)?;
    }
    y.permute((0, 3, 1, 2)).in_op(OP)
}
