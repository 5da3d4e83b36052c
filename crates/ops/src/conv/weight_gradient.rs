//! The gradient of a convolution's weights: sums over pixels.
//!
//! The sum is cut into parts whose number depends only on the shapes, and the parts are added in order,
//! so the result has the same bits for any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::gather::{Plane, Rows, Run, pixels, runs, runs_within};
use super::geometry::{Geometry, Region};
use super::reorder::{Axis, reorder};
use super::shared::Shared;
use crate::dense::Unwritten;
use crate::simd::{Float, isa};
use crate::tile::{Span, Tile, TileShape, Write, compute, ranges};

/// Pixels that are copied at a time.
const PIXELS: usize = 192;
/// Most rows of the weights that a task owns; with the pixels they stay in the second-level cache.
const MAX_ROWS: usize = 640;
/// Fewest: each task copies all of dy once more.
const MIN_ROWS: usize = 96;
/// Columns of dy that are copied at a time.
const COLUMNS: usize = 512;
/// Tasks that there should be at least, so that cores share the work.
const MIN_TASKS: usize = 16;
/// Parts of the pixels when the weights are few.
const PARTS: usize = 8;
/// Weights of a column, and columns, that are moved at a time when the result is put in order.
const ELEMENTS: usize = 144;
const COLUMNS_IN_LINE: usize = 16;

/// `[C_out, C/groups, K, K]`.
pub(super) fn of<T: Float>(x: &[T], dy: &[T], g: Geometry) -> Vec<T> {
    let mut dw = Unwritten::new(g.co * g.c_group() * g.k * g.k);
    let shared = Shared(dw.elements().as_mut_ptr().cast::<T>());
    let regions = g.outputs();
    for group in 0..g.spec.groups {
        let (cg, og) = (g.c_group(), g.co_group());
        let problem = Problem {
            x,
            dy,
            n: g.n,
            met: g.input_plane().of_group(group * cg),
            own: g.output_plane().of_group(group * og),
            channels: cg,
            columns: og,
            rows: g.k * g.k * cg,
            regions: &regions,
            shape: TileShape::of::<T>(isa()),
        };
        let taps_first = problem.solve();
        put_in_order(&taps_first, [og, cg, g.k * g.k], shared.at(group * og * cg * g.k * g.k));
    }
    // SAFETY: the groups hold all weights.
    unsafe { dw.written() }
}

/// `[taps, channels, columns]` → `[columns, channels, taps]`.
fn put_in_order<T: Float>(from: &[T], [columns, channels, taps]: [usize; 3], to: *mut T) {
    let to = Shared(to);
    let together = (ELEMENTS / taps).max(1);
    let parts = channels.div_ceil(together);
    (0..columns.div_ceil(COLUMNS_IN_LINE) * parts).into_par_iter().for_each(|task| {
        let column = task / parts * COLUMNS_IN_LINE;
        let channel = task % parts * together;
        let n_columns = COLUMNS_IN_LINE.min(columns - column);
        let n_channels = together.min(channels - channel);
        let axes = [
            Axis { len: n_columns, from: 1, to: channels * taps },
            Axis { len: taps, from: channels * columns, to: 1 },
            Axis { len: n_channels, from: columns, to: taps },
        ];
        // SAFETY: columns and channels of only this task, inside both matrices.
        unsafe {
            reorder(
                from.as_ptr().add(channel * columns + column),
                to.at((column * channels + channel) * taps),
                axes,
            );
        }
    });
}

/// One group: `dw[tap, channel][column] = Σ_pixels x[what the tap meets][channel] · dy[pixel][column]`.
struct Problem<'a, T> {
    x: &'a [T],
    dy: &'a [T],
    n: usize,
    met: Plane,
    own: Plane,
    channels: usize,
    columns: usize,
    /// Rows of the weights: taps · channels.
    rows: usize,
    regions: &'a [Region],
    shape: TileShape,
}

impl<T: Float> Problem<'_, T> {
    fn solve(&self) -> Vec<T> {
        let len = self.rows * self.columns;
        let pixels: usize = self.regions.iter().map(|r| self.n * r.pixels()).sum();
        let few = 2 * PARTS * len <= pixels * (self.channels + self.columns);
        let (parts, most_rows) = if few {
            (PARTS, MAX_ROWS)
        } else {
            (1, (self.rows / MIN_TASKS).clamp(MIN_ROWS, MAX_ROWS))
        };
        let of_tasks: Vec<Range<usize>> = ranges(self.rows, most_rows).collect();
        let mut sums = vec![T::zero(); parts * len];
        let shared = Shared(sums.as_mut_ptr());
        (0..parts * of_tasks.len()).into_par_iter().for_each(|task| {
            let (part, rows) = (task / of_tasks.len(), &of_tasks[task % of_tasks.len()]);
            self.add(rows, part, parts, Shared(shared.at(part * len)));
        });
        let (total, others) = sums.split_at_mut(len);
        total.par_chunks_mut(4096).enumerate().for_each(|(i, total)| {
            for other in others.chunks_exact(len) {
                for (total, value) in total.iter_mut().zip(&other[i * 4096..]) {
                    *total += *value;
                }
            }
        });
        sums.truncate(len);
        sums
    }

    /// Adds one of `parts` of the pixels of each region to some rows of the weights.
    fn add(&self, weight_rows: &Range<usize>, part: usize, parts: usize, dw: Shared<T>) {
        for region in self.regions {
            let runs = runs_within(&runs(&region.taps, self.channels, self.met), weight_rows);
            if runs.is_empty() {
                continue;
            }
            let all = self.n * region.pixels();
            let start = all * part / parts;
            for pixels in ranges(all * (part + 1) / parts - start, PIXELS) {
                self.add_pixels(region, start + pixels.start..start + pixels.end, &runs, dw);
            }
        }
    }

    fn add_pixels(&self, region: &Region, range: Range<usize>, runs: &[Run], dw: Shared<T>) {
        let pixels = pixels(region, range, self.own, self.met);
        let x = Rows::copy(self.x, &pixels, runs);
        let out_rows: Vec<usize> = runs
            .iter()
            .flat_map(|run| run.weight_row..run.weight_row + run.len)
            .map(|row| row * self.columns)
            .collect();
        for first in (0..self.columns).step_by(COLUMNS) {
            let columns = COLUMNS.min(self.columns - first);
            let vectors = self.shape.column_blocks(columns);
            let widths: Vec<usize> = vectors.iter().map(|v| v * self.shape.lanes).collect();
            let dy = Rows::blocks(self.dy, &pixels, first..first + columns, &widths);
            let mut column = 0;
            for (vectors, width) in vectors.iter().zip(&widths) {
                let block = BlockOfDy {
                    numbers: dy.pointer().wrapping_add(pixels.len() * column),
                    vectors: *vectors,
                    columns: (*width).min(columns - column),
                    pixels: pixels.len(),
                };
                self.multiply(&x, &block, &out_rows, dw.at(first + column));
                column += width;
            }
        }
    }

    fn multiply(&self, x: &Rows<T>, dy: &BlockOfDy<T>, out_rows: &[usize], out: *mut T) {
        let spans = [Span { a: 0, b: 0, len: dy.pixels }];
        for part in ranges(out_rows.len(), self.shape.max_rows(dy.vectors)) {
            let tile = Tile {
                a: x.pointer().wrapping_add(part.start),
                a_row: 1,
                a_red: x.stride,
                b: dy.numbers,
                b_red: dy.vectors * self.shape.lanes,
                spans: &spans,
                out,
                out_rows: &out_rows[part.clone()],
                columns: dy.columns,
                write: Write::Add,
            };
            // SAFETY: x has a row of all weight rows for each pixel, dy a row as wide as the block; the
            // caller owns the weight rows.
            unsafe { compute(self.shape, part.len(), dy.vectors, &tile) };
        }
    }
}

/// Some columns of dy, `[pixels, vectors · lanes]`.
struct BlockOfDy<T> {
    numbers: *const T,
    vectors: usize,
    columns: usize,
    pixels: usize,
}
