//! Output pixels as sums over taps and channels: the forward pass and the gradient of the input.

use rayon::prelude::*;

use crate::simd::{Float, isa};
use crate::tile::{Span, Tile, TileShape, compute, split_evenly};

/// Elements of packed weights that one pass over a task's pixels works on; with the pixels they should
/// stay in the second-level cache (1 MiB on current servers, half of that on desktops).
const WEIGHTS_IN_CACHE: usize = 48 * 1024;
/// Output pixels of a task: few enough to share the work among cores, many enough to reuse weights.
const TASK_PIXELS: usize = 256;
const MIN_TASK_PIXELS: usize = 64;
const MIN_TASKS: usize = 16;

/// Weights in the order the kernel reads them: blocks of columns, each `[reduction, block width]`, the
/// last one filled up with zero columns.
#[derive(Debug)]
pub(crate) struct Packed<T> {
    numbers: Vec<T>,
    blocks: Vec<Block>,
    shape: TileShape,
}

#[derive(Debug)]
struct Block {
    start: usize,
    first_column: usize,
    columns: usize,
    vectors: usize,
}

impl<T: Float> Packed<T> {
    /// Packs `weight(reduction, column)`.
    pub(crate) fn new(
        reduction: usize,
        columns: usize,
        weight: impl Fn(usize, usize) -> T + Sync,
    ) -> Self {
        let shape = TileShape::of::<T>(isa());
        let mut blocks = Vec::new();
        let (mut start, mut first_column) = (0, 0);
        for vectors in shape.column_blocks(columns) {
            let width = vectors * shape.lanes;
            let within = width.min(columns - first_column);
            blocks.push(Block { start, first_column, columns: within, vectors });
            start += reduction * width;
            first_column += width;
        }
        let mut numbers = vec![T::zero(); start];
        for block in &blocks {
            let width = block.vectors * shape.lanes;
            let rows = &mut numbers[block.start..block.start + reduction * width];
            rows.par_chunks_mut(width).with_min_len(64).enumerate().for_each(|(r, row)| {
                for (column, value) in row[..block.columns].iter_mut().enumerate() {
                    *value = weight(r, block.first_column + column);
                }
            });
        }
        Self { numbers, blocks, shape }
    }
}

/// A row of output pixels: where its input and output start, and how many pixels it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PixelRow {
    pub(crate) a: usize,
    pub(crate) out: usize,
    pub(crate) pixels: usize,
}

/// Strides of a correlation, in elements. Span `j` of the reduction reads `span_len` elements from
/// `spans[j]` behind a pixel's start and the packed weights from row `j·span_len`.
#[derive(Debug)]
pub(crate) struct Correlation<'a, T> {
    pub(crate) a: &'a [T],
    pub(crate) a_pixel: usize,
    pub(crate) spans: &'a [usize],
    pub(crate) span_len: usize,
    pub(crate) weights: &'a Packed<T>,
    pub(crate) out_pixel: usize,
}

/// A pointer that tasks share because each writes pixels of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: users write disjoint elements only, as their comments say.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn at(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

impl<T: Float> Correlation<'_, T> {
    /// Computes rows `0..n_rows`. `row(i)` must give different output pixels for different `i`.
    pub(crate) fn run(&self, n_rows: usize, row: impl Fn(usize) -> PixelRow + Sync, out: &mut [T]) {
        if n_rows == 0 || self.spans.is_empty() {
            return;
        }
        let pixels_per_row = row(0).pixels.max(1);
        let task_pixels = (n_rows * pixels_per_row / MIN_TASKS).clamp(MIN_TASK_PIXELS, TASK_PIXELS);
        let rows_per_task = task_pixels.div_ceil(pixels_per_row);
        let shared = Shared(out.as_mut_ptr());
        (0..n_rows.div_ceil(rows_per_task)).into_par_iter().for_each(|task| {
            let rows: Vec<PixelRow> = (task * rows_per_task
                ..((task + 1) * rows_per_task).min(n_rows))
                .map(&row)
                .collect();
            self.run_task(&rows, shared);
        });
    }

    fn run_task(&self, rows: &[PixelRow], out: Shared<T>) {
        let shape = self.weights.shape;
        for block in &self.weights.blocks {
            let width = block.vectors * shape.lanes;
            let spans_in_cache = (WEIGHTS_IN_CACHE / (width * self.span_len)).max(1);
            for (chunk_idx, chunk) in self.spans.chunks(spans_in_cache).enumerate() {
                let first_span = chunk_idx * spans_in_cache;
                let spans: Vec<Span> = chunk
                    .iter()
                    .enumerate()
                    .map(|(i, a)| Span {
                        a: *a,
                        b: block.start + (first_span + i) * self.span_len * width,
                    })
                    .collect();
                for row in rows {
                    self.run_row(*row, block, &spans, out);
                }
            }
        }
    }

    fn run_row(&self, row: PixelRow, block: &Block, spans: &[Span], out: Shared<T>) {
        let shape = self.weights.shape;
        let mut first_pixel = 0;
        for rows in split_evenly(row.pixels, shape.max_rows(block.vectors)) {
            let tile = Tile {
                a: self.a.as_ptr().wrapping_add(row.a + first_pixel * self.a_pixel),
                a_row: self.a_pixel,
                a_red: 1,
                b: self.weights.numbers.as_ptr(),
                b_red: block.vectors * shape.lanes,
                spans,
                span_len: self.span_len,
                out: out.at(row.out + first_pixel * self.out_pixel + block.first_column),
                out_row: self.out_pixel,
                columns: block.columns,
                // The first part of the reduction overwrites, the others add.
                accumulate: spans.first().is_some_and(|span| span.b > block.start),
            };
            debug_assert!(
                spans.iter().all(|span| row.a
                    + (first_pixel + rows - 1) * self.a_pixel
                    + span.a
                    + self.span_len
                    <= self.a.len()),
                "a tile reads behind its input"
            );
            // SAFETY: offsets stay inside the padded input (checked in debug builds) and the packed
            // weights, whose blocks are whole vectors wide; the rows of different tasks and the columns
            // of different blocks are different elements of the output.
            unsafe { compute(shape, rows, block.vectors, &tile) };
            first_pixel += rows;
        }
    }
}
