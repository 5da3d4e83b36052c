//! The gradient of a convolution's weights: sums over pixels.
//!
//! The sum is cut into parts whose number depends on the shapes alone, and the parts are added in order,
//! so the result has the same bits for any number of threads.

use rayon::prelude::*;

use super::geometry::{Geometry, Padded, Padding, pad};
use super::{POINTWISE_ROW, Shared};
use crate::simd::{Float, isa};
use crate::tile::{Span, Tile, TileShape, compute, split_evenly};

/// Elements of input and output gradient that one pass of tiles works on; see
/// `correlate::WEIGHTS_IN_CACHE`.
const PIXELS_IN_CACHE: usize = 64 * 1024;
/// Parts of the pixels when the weights are few.
const PARTS: usize = 8;
/// Rows of the weights that a task owns when the weights are many.
const TASK_ROWS: usize = 96;

/// A row of output pixels with the input it reads.
struct Rows<'a, T: Clone> {
    x: Padded<'a, T>,
    dy: Padded<'a, T>,
    /// (start in x, start in dy) of each row.
    starts: Vec<(usize, usize)>,
    pixels: usize,
}

/// `[C_out, C/groups, K, K]`.
pub(super) fn of<T: Float>(x: &[T], dy: &[T], g: Geometry) -> Vec<T> {
    let shape = TileShape::of::<T>(isa());
    let rows = rows(x, dy, g, shape.lanes);
    let problem = Problem { g, shape, rows, spans: spans(g) };
    let taps_first = if PARTS * problem.len() * 2 <= x.len() + dy.len() {
        problem.in_parts()
    } else {
        problem.in_tasks()
    };
    // [taps, C/groups, C_out] as the kernel leaves it → [C_out, C/groups, taps].
    let (cg, taps) = (g.c_group(), g.k * g.k);
    let mut dw = vec![T::zero(); taps_first.len()];
    dw.par_chunks_mut(cg * taps).enumerate().for_each(|(column, dw)| {
        for (i, value) in dw.iter_mut().enumerate() {
            *value = taps_first[((i % taps) * cg + i / taps) * g.co + column];
        }
    });
    dw
}

/// Cuts the pixels into rows; dy gets zero channels so that whole vectors can be read.
fn rows<'a, T: Float>(x: &'a [T], dy: &'a [T], g: Geometry, lanes: usize) -> Rows<'a, T> {
    // A group's last vector may reach into the next group's channels: harmless, they are not stored.
    let channels = if g.spec.groups == 1 { g.co.next_multiple_of(lanes) - g.co } else { lanes };
    let by = Padding { top: 0, bottom: 0, left: 0, right: 0, channels };
    let dy = pad(dy, [g.ho, g.wo, g.co], by);
    let x = pad(x, [g.h, g.w, g.c], Padding::around(g.spec.padding));
    if g.is_pointwise() {
        // A divisor of the number of pixels, so that all rows are equally long.
        let all = g.n * g.h * g.w;
        let pixels =
            (1..=POINTWISE_ROW.min(all)).rev().find(|p| all.is_multiple_of(*p)).unwrap_or(1);
        let starts = (0..all / pixels).map(|i| (i * pixels * x.c, i * pixels * dy.c)).collect();
        return Rows { x, dy, starts, pixels };
    }
    let start = |i: usize| {
        let (image, y) = (i / g.ho, i % g.ho);
        ((image * x.h + y * g.spec.stride) * x.w * x.c, i * g.wo * dy.c)
    };
    let starts = (0..g.n * g.ho).map(start).collect();
    Rows { x, dy, starts, pixels: g.wo }
}

/// Runs of weight rows that are contiguous in x: (offset in x, first weight row, weight rows).
fn spans(g: Geometry) -> Vec<(usize, usize, usize)> {
    let width = g.w + 2 * g.spec.padding;
    let cg = g.c_group();
    if g.rows_are_contiguous() {
        let row = g.k * cg;
        return (0..g.k).map(|ky| (ky * width * g.c, ky * row, row)).collect();
    }
    let offset = |tap: usize| (tap / g.k * width + tap % g.k) * g.spec.dilation * g.c;
    (0..g.k * g.k).map(|tap| (offset(tap), tap * cg, cg)).collect()
}

struct Problem<'a, T: Clone> {
    g: Geometry,
    shape: TileShape,
    rows: Rows<'a, T>,
    spans: Vec<(usize, usize, usize)>,
}

impl<T: Float> Problem<'_, T> {
    fn len(&self) -> usize {
        self.g.k * self.g.k * self.g.c_group() * self.g.co
    }

    /// Few weights: each part sums its pixels into weights of its own.
    fn in_parts(&self) -> Vec<T> {
        let per_part = self.rows.starts.len().div_ceil(PARTS);
        let mut parts: Vec<Vec<T>> = (0..PARTS).map(|_| vec![T::zero(); self.len()]).collect();
        parts.par_iter_mut().enumerate().for_each(|(part, dw)| {
            let all = self.rows.starts.len();
            let range = (part * per_part).min(all)..((part + 1) * per_part).min(all);
            let shared = Shared(dw.as_mut_ptr());
            for group in 0..self.g.spec.groups {
                for span in &self.spans {
                    self.add(&self.rows.starts[range.clone()], group, *span, shared);
                }
            }
        });
        let mut parts = parts.into_iter();
        let mut total = parts.next().unwrap_or_default();
        for part in parts {
            for (total, value) in total.iter_mut().zip(part) {
                *total += value;
            }
        }
        total
    }

    /// Many weights: each task owns some rows of the weights and sums all pixels.
    fn in_tasks(&self) -> Vec<T> {
        let mut dw = vec![T::zero(); self.len()];
        let shared = Shared(dw.as_mut_ptr());
        let mut tasks = Vec::new();
        for group in 0..self.g.spec.groups {
            for (x, first, rows) in &self.spans {
                let mut done = 0;
                for part in split_evenly(*rows, TASK_ROWS) {
                    tasks.push((group, (x + done, first + done, part)));
                    done += part;
                }
            }
        }
        tasks.par_iter().for_each(|(group, span)| {
            self.add(&self.rows.starts, *group, *span, shared);
        });
        dw
    }

    /// Adds the sums over the pixels of `starts` to the weight rows of a span.
    fn add(
        &self,
        starts: &[(usize, usize)],
        group: usize,
        (x_offset, first_row, n_rows): (usize, usize, usize),
        dw: Shared<T>,
    ) {
        let g = self.g;
        let row_elements = self.rows.pixels * (n_rows * g.spec.stride + g.co_group());
        for chunk in starts.chunks((PIXELS_IN_CACHE / row_elements).max(1)) {
            let spans: Vec<Span> = chunk.iter().map(|(a, b)| Span { a: *a, b: *b }).collect();
            let mut column = 0;
            for vectors in self.shape.column_blocks(g.co_group()) {
                let columns = (vectors * self.shape.lanes).min(g.co_group() - column);
                let column_start = group * g.co_group() + column;
                let mut row = 0;
                for rows in split_evenly(n_rows, self.shape.max_rows(vectors)) {
                    let x_start = group * g.c_group() + x_offset + row;
                    let tile = Tile {
                        a: self.rows.x.numbers.as_ptr().wrapping_add(x_start),
                        a_row: 1,
                        a_red: g.spec.stride * g.c,
                        b: self.rows.dy.numbers.as_ptr().wrapping_add(column_start),
                        b_red: self.rows.dy.c,
                        spans: &spans,
                        span_len: self.rows.pixels,
                        out: dw.at((first_row + row) * g.co + column_start),
                        out_row: g.co,
                        columns,
                        accumulate: true,
                    };
                    // SAFETY: offsets stay inside the padded x and dy, dy has zero channels up to a
                    // whole vector; each caller owns the weight rows of its span.
                    unsafe { compute(self.shape, rows, vectors, &tile) };
                    row += rows;
                }
                column += columns;
            }
        }
    }
}
