//! Max pooling and global average pooling.

use candle_core::{DType, Tensor};

use crate::dense::dims4;
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Gpu, Grid, Kernel, channels_last, expect_dtype, rows, u32_of, vectors};

const MAX: &str = "max_pool";
const AVERAGE: &str = "global_average_pool";

/// The output `[N, C, H_out, W_out]` and the taps `[N, H_out, W_out, C]` of [`crate::max_pool`].
pub(crate) fn max(
    gpu: &dyn Gpu,
    x: &Tensor,
    [ho, wo]: [usize; 2],
) -> Result<(Tensor, Tensor), OpError> {
    let x = channels_last(MAX, "x", x)?;
    let x = x.tensor();
    let [n, h, w, c] = dims4(MAX, "x", x)?;
    let y = gpu.alloc(MAX, &[n, ho, wo, c], x.dtype())?;
    let taps = gpu.alloc(MAX, &[n, ho, wo, c], DType::U8)?;
    if y.elem_count() > 0 {
        let mut args = vec![Arg::In(x), Arg::Out(&y), Arg::Out(&taps)];
        for size in [n, h, w, c, ho, wo] {
            args.push(u32_of(MAX, size)?);
        }
        gpu.launch(MAX, Kernel::typed("max_pool", x), Grid::of_elements(gpu, vectors(&y)), &args)?;
    }
    Ok((y.permute((0, 3, 1, 2)).in_op(MAX)?, taps))
}

/// See [`crate::max_pool_backward`]; `dims` are `[N, C, H, W]`.
pub(crate) fn max_backward(
    gpu: &dyn Gpu,
    taps: &Tensor,
    [n, c, h, w]: [usize; 4],
    dy: &Tensor,
) -> Result<Tensor, OpError> {
    let dy = channels_last(MAX, "dy", dy)?;
    let dy = dy.tensor();
    let [_, ho, wo, _] = dims4(MAX, "dy", dy)?;
    expect_dtype(MAX, "taps", taps, DType::U8)?;
    let dx = gpu.alloc(MAX, &[n, h, w, c], dy.dtype())?;
    if dx.elem_count() > 0 {
        let mut args = vec![Arg::In(taps), Arg::In(dy), Arg::Out(&dx)];
        for size in [n, h, w, c, ho, wo] {
            args.push(u32_of(MAX, size)?);
        }
        let grid = Grid::of_elements(gpu, vectors(&dx));
        gpu.launch(MAX, Kernel::typed("max_pool_backward", dy), grid, &args)?;
    }
    dx.permute((0, 3, 1, 2)).in_op(MAX)
}

/// See [`crate::global_average_pool`]; always f32.
pub(crate) fn average(gpu: &dyn Gpu, x: &Tensor) -> Result<Tensor, OpError> {
    let x = channels_last(AVERAGE, "x", x)?;
    let x = x.tensor();
    let [n, h, w, c] = dims4(AVERAGE, "x", x)?;
    let y = gpu.alloc(AVERAGE, &[n, c], DType::F32)?;
    if y.elem_count() > 0 {
        let [n, pixels, c] = [n, h * w, c].map(|size| u32_of(AVERAGE, size));
        let args = [Arg::In(x), Arg::Out(&y), n?, pixels?, c?];
        let kernel = Kernel::typed("global_average_pool", x);
        gpu.launch(AVERAGE, kernel, Grid::of_elements(gpu, y.elem_count()), &args)?;
    }
    Ok(y)
}

/// See [`crate::global_average_pool_backward`]; `dims` are `[N, C, H, W]`.
pub(crate) fn average_backward(
    gpu: &dyn Gpu,
    [n, c, h, w]: [usize; 4],
    dy: &Tensor,
    dtype: DType,
) -> Result<Tensor, OpError> {
    expect_dtype(AVERAGE, "dy", dy, DType::F32)?;
    let dy = rows(AVERAGE, "dy", dy)?;
    let dx = gpu.alloc(AVERAGE, &[n, h, w, c], dtype)?;
    let dx = rows(AVERAGE, "dtype", &dx)?;
    let dx = dx.tensor();
    if dx.elem_count() > 0 {
        let [n, pixels, c] = [n, h * w, c].map(|size| u32_of(AVERAGE, size));
        let args = [Arg::In(dy.tensor()), Arg::Out(dx), n?, pixels?, c?];
        let kernel = Kernel::typed("global_average_pool_backward", dx);
        gpu.launch(AVERAGE, kernel, Grid::of_elements(gpu, vectors(dx)), &args)?;
    }
    dx.permute((0, 3, 1, 2)).in_op(AVERAGE)
}
