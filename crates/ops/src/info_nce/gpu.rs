//! InfoNCE on a GPU: a walk over the queue in parts, and a merge of the parts.

use candle_core::{DType, Tensor};

use super::statistics::{OP, count};
use crate::dense::{Dense, dims2, shape};
use crate::error::OpError;
use crate::gpu::{Arg, Gpu, Grid, Kernel, expect_dtype, rows, u32_of};

/// As in `kernels/info_nce.cuh`: queries and keys of a block, channels of its gradient, threads.
const QUERIES: usize = 32;
const KEYS: usize = 32;
const SLAB: usize = 128;
const THREADS: u32 = 128;
/// About as many blocks as an H100 holds of this kernel at a time. It is a constant so that the parts,
/// and with them the bits of the result, depend only on the shapes.
const BLOCKS: usize = 512;
/// Blocks of keys of a part: fewer do not pay for the start of a part, more would let the rounding of f32
/// sums grow.
const PART: std::ops::RangeInclusive<usize> = 8..=64;
/// Most blocks of a grid along y.
const MOST_PARTS: usize = 65_535;
/// A logit may exceed the reference by this much before the sums are rescaled: e^8 = 2981 costs no digits.
const SLACK: f64 = 8.0;

/// See [`crate::info_nce()`]: the gradient `[N, C]` of the mean loss, and the `[N, 4]` of
/// [`PendingStatistics`](crate::PendingStatistics).
pub(super) fn loss_and_gradient(
    gpu: &dyn Gpu,
    q: &Tensor,
    k: &Tensor,
    queue: &Tensor,
    temperature: f64,
) -> Result<(Tensor, Tensor), OpError> {
    for (name, x) in [("q", q), ("k", k)] {
        expect_dtype(OP, name, x, DType::F32)?;
    }
    let [q, k, queue] = [Dense::rows(OP, q)?, Dense::rows(OP, k)?, rows(OP, "queue", queue)?];
    let [q, k, queue] = [q.tensor(), k.tensor(), queue.tensor()];
    let ([n, c], [_, n_negatives]) = (dims2(OP, "q", q)?, dims2(OP, "queue", queue)?);
    if n_negatives == 0 {
        return Err(shape(OP, "queue", "at least one key", queue.dims()));
    }
    let dq = gpu.alloc(OP, &[n, c], DType::F32)?;
    let statistics = gpu.alloc(OP, &[n, 4], DType::F32)?;
    if n == 0 {
        return Ok((dq, statistics));
    }
    let tiles = n.div_ceil(QUERIES) * c.div_ceil(SLAB);
    let per_part = keys_per_part(tiles, n_negatives);
    let n_parts = n_negatives.div_ceil(per_part);
    let gradient = gpu.alloc(OP, &[n_parts, n, c], DType::F32)?;
    let softmax = gpu.alloc(OP, &[n_parts, n, 4], DType::F32)?;
    let size = |size| u32_of(OP, size);
    let (sizes, per_temperature) = ([size(n)?, size(c)?, size(n_negatives)?], 1.0 / temperature);

    let mut args = vec![Arg::In(q), Arg::In(k), Arg::In(queue)];
    args.extend([Arg::Out(&gradient), Arg::Out(&softmax)]);
    args.extend(sizes);
    args.extend([size(per_part)?, f32_of(per_temperature), f32_of(SLACK * temperature)]);
    let grid = blocks(tiles, n_parts);
    gpu.launch(OP, Kernel::typed("info_nce_part", queue), grid, &args)?;

    let mut args = vec![Arg::In(q), Arg::In(k), Arg::In(&gradient), Arg::In(&softmax)];
    args.extend([Arg::Out(&dq), Arg::Out(&statistics)]);
    args.extend(sizes);
    let scale = per_temperature / count(n);
    args.extend([size(n_parts)?, f32_of(per_temperature), f32_of(scale)]);
    gpu.launch(OP, Kernel::new("info_nce_merge"), blocks(n, 1), &args)?;
    Ok((dq, statistics))
}

fn blocks(x: usize, y: usize) -> Grid {
    // Both are at most a size that is an argument too, where one that is too large is an error.
    let blocks = [x, y].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Grid { blocks, threads: THREADS, shared_bytes: 0 }
}

#[expect(clippy::cast_possible_truncation, reason = "what the kernels compute in")]
fn f32_of(x: f64) -> Arg<'static> {
    Arg::F32(x as f32)
}

/// Negatives of a part of the queue, for `tiles` blocks that walk over each part.
fn keys_per_part(tiles: usize, n_negatives: usize) -> usize {
    let n_blocks = n_negatives.div_ceil(KEYS);
    let even = n_blocks.div_ceil((BLOCKS / tiles.max(1)).max(1));
    even.clamp(*PART.start(), *PART.end()).max(n_blocks.div_ceil(MOST_PARTS)) * KEYS
}
