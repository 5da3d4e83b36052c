//! Normalization of images on a GPU.

use candle_core::{DType, Tensor};

use crate::dense::{Dense, dims4};
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Gpu, Grid, Kernel, elements, vectors};

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
