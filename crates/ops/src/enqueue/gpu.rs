//! Keys on their way into the queue.

use candle_core::{DType, Tensor};

use crate::dense::{Dense, dims2};
use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, THREADS, expect_dtype, expect_kernels, narrow, u32_of};

/// Keys and channels of a block: a square that it turns.
const SIDE: usize = 32;

/// See [`crate::enqueue_`].
pub(crate) fn enqueue(
    gpu: &dyn Gpu,
    op: &'static str,
    queue: &Tensor,
    keys: &[&Tensor],
    ptr: &Tensor,
) -> Result<(), OpError> {
    expect_kernels(op, "queue", queue)?;
    for keys in keys {
        expect_dtype(op, "keys", keys, DType::F32)?;
    }
    let mut first = 0;
    for keys in keys {
        let keys = Dense::rows(op, keys)?;
        let keys = keys.tensor();
        let [n, c] = dims2(op, "keys", keys)?;
        if keys.elem_count() == 0 {
            continue;
        }
        let args = [
            Arg::In(keys),
            Arg::In(ptr),
            Arg::Out(queue),
            u32_of(op, n)?,
            u32_of(op, c)?,
            u32_of(op, queue.dims()[1])?,
            u32_of(op, first)?,
        ];
        let blocks = [narrow(op, n.div_ceil(SIDE))?, narrow(op, c.div_ceil(SIDE))?];
        let grid = Grid { blocks, threads: THREADS, shared_bytes: 0 };
        gpu.launch(op, Kernel::typed("enqueue", queue), grid, &args)?;
        first += n;
    }
    Ok(())
}
