//! In-place updates of all tensors of a network in one launch.
//!
//! Where the tensors are is a table in device memory. It is a few kilobytes, written with each update
//! without waiting for the device.

use candle_core::{DType, Tensor};

use super::types::{EmaUpdate, SgdUpdate};
use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, THREADS, expect_dtype, u32_of, upload_table};

/// Numbers that a block takes; `UPDATE_CHUNK` of the kernels.
const CHUNK: usize = 16384;

/// See [`crate::sgd_`].
pub(crate) fn sgd(
    gpu: &dyn Gpu,
    updates: &[SgdUpdate<'_>],
    lr: &Tensor,
    constants: [f64; 2],
) -> Result<(), OpError> {
    const OP: &str = "sgd";
    expect_dtype(OP, "lr", lr, DType::F32)?;
    let rows = updates.iter().map(SgdUpdate::tensors).map(|[p, g, buffer]| {
        expect_dtype(OP, "parameter", p, DType::F32)?;
        Ok(([p, g, buffer], [p, buffer]))
    });
    launch(gpu, OP, &rows.collect::<Result<Vec<_>, _>>()?, Some(lr), &constants)
}

/// See [`crate::ema_`].
pub(crate) fn ema(
    gpu: &dyn Gpu,
    updates: &[EmaUpdate<'_>],
    key_momentum: f64,
) -> Result<(), OpError> {
    const OP: &str = "ema";
    let rows = updates.iter().map(EmaUpdate::tensors).map(|[key, query]| {
        expect_dtype(OP, "key", key, DType::F32)?;
        Ok(([key, query], [key]))
    });
    let constants = [key_momentum, 1.0 - key_momentum];
    launch(gpu, OP, &rows.collect::<Result<Vec<_>, _>>()?, None, &constants)
}

/// The tensors of each row in the kernel's order, and those of them that it changes.
type Row<'a, const N: usize, const M: usize> = ([&'a Tensor; N], [&'a Tensor; M]);

fn launch<const N: usize, const M: usize>(
    gpu: &dyn Gpu,
    op: &'static str,
    rows: &[Row<'_, N, M>],
    lr: Option<&Tensor>,
    constants: &[f64],
) -> Result<(), OpError> {
    let mut table = Vec::new();
    let mut blocks = Vec::new();
    for ((tensor, (row, _)), len) in (0_u64..).zip(rows).zip(lengths(rows)) {
        for x in row {
            table.push(gpu.address(op, x)?);
        }
        table.push(len as u64);
        blocks.extend((0..len.div_ceil(CHUNK) as u64).map(|chunk| tensor << 32 | chunk));
    }
    let Ok(n_blocks @ 1..) = u32::try_from(blocks.len()) else { return Ok(()) };
    table.extend(blocks);
    let table = upload_table(gpu, op, &table)?;
    let mut args = vec![Arg::In(&table), u32_of(op, rows.len())?];
    args.extend(lr.map(Arg::In));
    #[expect(clippy::cast_possible_truncation, reason = "kernels take f32")]
    args.extend(constants.iter().map(|constant| Arg::F32(*constant as f32)));
    args.extend(rows.iter().flat_map(|(_, changed)| changed).map(|x| Arg::Changed(x)));
    let grid = Grid { blocks: [n_blocks, 1], threads: THREADS, shared_bytes: 0 };
    gpu.launch(op, Kernel::new(op), grid, &args)
}

fn lengths<const N: usize, const M: usize>(rows: &[Row<'_, N, M>]) -> impl Iterator<Item = usize> {
    rows.iter().map(|(row, _)| row.first().map_or(0, |x| x.elem_count()))
}
