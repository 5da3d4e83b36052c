//! Rows in another order.

use candle_core::Tensor;

use super::order::{in_row_order, out_of_row_order};
use crate::error::{InOp, OpError};
use crate::gpu::{Arg, Gpu, Grid, Kernel, THREADS, narrow, u32_of};

/// Bytes of an access.
const PACK: usize = 16;

/// See [`crate::select_rows`].
pub(crate) fn rows(
    gpu: &dyn Gpu,
    op: &'static str,
    x: &Tensor,
    order: &Tensor,
) -> Result<Tensor, OpError> {
    let x = in_row_order(x)?;
    let x = x.tensor();
    let mut dims = x.dims().to_vec();
    let [n, m] = [dims.first().copied().unwrap_or(0), order.elem_count()];
    if let Some(rows) = dims.first_mut() {
        *rows = m;
    }
    let y = gpu.alloc(op, &dims, x.dtype())?;
    if y.elem_count() > 0 {
        let order = order.contiguous().in_op(op)?;
        let row = y.elem_count() / m * y.dtype().size_in_bytes();
        let args = [
            Arg::In(x),
            Arg::In(&order),
            Arg::Out(&y),
            u32_of(op, n)?,
            u32_of(op, m)?,
            Arg::U64(row as u64),
        ];
        // A block along x for each row, and along y as many as are busy with a row.
        let packs = row.div_ceil(PACK);
        let blocks = [narrow(op, m)?, narrow(op, packs.div_ceil(PACKS_A_BLOCK).min(MOST_BLOCKS))?];
        let grid = Grid { blocks, threads: THREADS, shared_bytes: 0 };
        gpu.launch(op, Kernel::new("select_rows"), grid, &args)?;
    }
    out_of_row_order(&y)
}

/// Accesses that a block does, four a thread.
const PACKS_A_BLOCK: usize = 1024;
/// Blocks that share a row at most.
const MOST_BLOCKS: usize = 64;
