//! One pass over a part of the queue: cosines, their softmax so far, and the gradient's sums, for panels
//! of queries.
//!
//! Queries are the columns of all matrices here, so that a register holds different queries and nothing
//! is ever summed across a register. A block of the queue, its cosines and the sums of a group of panels
//! stay in the second-level cache.

use std::ops::Range;

use candle_core::Tensor;

use super::statistics::OP;
use crate::dense::{Dense, lend};
use crate::error::{InOp, OpError};
use crate::simd::{Float, isa, vectorize};
use crate::tile::{Span, Tile, TileShape, Write, compute, ranges};

/// Negatives whose cosines exist at a time, a task.
pub(super) const BLOCK: usize = 128;
/// Blocks whose gradients are added up in the tensors' own type before they go to f64.
const RECENT: usize = 8;
/// A logit may exceed the reference by this much before the sums are rescaled: e^8 = 2981 costs no digits.
const SLACK: f64 = 8.0;
/// Columns at a time: one AVX-512 register of f32. Panels are multiples of `FEW` wide.
const LANES: usize = 16;
const FEW: usize = 4;

/// As many queries as fill a register tile, as columns.
pub(super) struct Panel<T> {
    shape: TileShape,
    vectors: usize,
    c: usize,
    /// Where in the batch its queries are; the columns after the last are zero.
    pub(super) first: usize,
    pub(super) n: usize,
    /// `[C, width]`.
    columns: Vec<T>,
    /// Cosine of each query and its positive `[width]`, computed as the negatives' are, so that equal
    /// keys give equal bits.
    pub(super) positive: Vec<T>,
}

impl<T: Float> Panel<T> {
    /// The panels of `[N, C]` queries and positives.
    pub(super) fn of_batch(q: &[T], k: &[T], c: usize) -> Vec<Self> {
        let shape = TileShape::of::<T>(isa());
        let mut panels = Vec::new();
        let mut first = 0;
        for vectors in shape.column_blocks(q.len() / c.max(1)) {
            let rows = first * c..(first + vectors * shape.lanes).min(q.len() / c) * c;
            let mut panel = Self::new(shape, vectors, c, [&q[rows.clone()], &k[rows]]);
            panel.first = first;
            panels.push(panel);
            first += vectors * shape.lanes;
        }
        panels
    }

    fn new(shape: TileShape, vectors: usize, c: usize, [q, k]: [&[T]; 2]) -> Self {
        let (n, width) = (q.len() / c, vectors * shape.lanes);
        let mut columns = vec![T::zero(); c * width];
        for (query, q) in q.chunks_exact(c).enumerate() {
            for (channel, q) in q.iter().enumerate() {
                columns[channel * width + query] = *q;
            }
        }
        let mut panel =
            Self { shape, vectors, c, first: 0, n, columns, positive: vec![T::zero(); width] };
        let mut cosines = vec![T::zero(); n * width];
        let keys = Matrix { numbers: k, row: c, column: 1, rows: n, columns: c };
        panel.multiply(keys, &panel.columns, &mut cosines, Write::Set);
        for query in 0..n {
            panel.positive[query] = cosines[query * width + query];
        }
        panel
    }

    pub(super) fn width(&self) -> usize {
        self.vectors * self.shape.lanes
    }

    /// `out (+)= a·b` for `b` `[a.columns, width]` and `out` `[a.rows, width]`.
    fn multiply(&self, a: Matrix<'_, T>, b: &[T], out: &mut [T], write: Write) {
        let width = self.width();
        if a.rows == 0 || a.columns == 0 {
            return;
        }
        let last = (a.rows - 1) * a.row + (a.columns - 1) * a.column;
        debug_assert!(last < a.numbers.len(), "the left matrix ends early");
        debug_assert!(a.columns * width <= b.len(), "the right matrix ends early");
        debug_assert!(a.rows * width <= out.len(), "the product ends early");
        let out_rows: Vec<usize> = (0..a.rows).map(|row| row * width).collect();
        for rows in ranges(a.rows, self.shape.max_rows(self.vectors)) {
            let tile = Tile {
                a: a.numbers.as_ptr().wrapping_add(rows.start * a.row),
                a_row: a.row,
                a_red: a.column,
                b: b.as_ptr(),
                b_red: width,
                spans: &[Span { a: 0, b: 0, len: a.columns }],
                out: out.as_mut_ptr(),
                out_rows: &out_rows[rows.clone()],
                columns: width,
                write,
            };
            // SAFETY: all three matrices hold what the tile reads and writes (checked in debug builds),
            // and the width is a whole number of vectors of the running CPU.
            unsafe { compute(self.shape, rows.len(), self.vectors, &tile) };
        }
    }
}

/// A matrix with strides in elements.
#[derive(Clone, Copy)]
struct Matrix<'a, T> {
    numbers: &'a [T],
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

/// The partial softmax of a panel after a part of the queue.
pub(super) struct Partial<T> {
    /// Cosine that exponents are relative to `[width]`: at first the positive's, then the largest seen
    /// when one exceeded it by too much.
    pub(super) reference: Vec<T>,
    /// Σ e^((cosine − reference)/τ) `[width]`.
    pub(super) sum: Vec<f64>,
    /// Σ cosine `[width]`.
    pub(super) cosines: Vec<f64>,
    /// Negatives whose cosine is not below the positive's `[width]`.
    pub(super) positive_rank: Vec<u32>,
    /// Σ e^((cosine − reference)/τ)·key `[C, width]`.
    pub(super) gradient: Vec<f64>,
}

/// Walks over the columns `negatives` of the queue; gives what it learned for each panel.
pub(super) fn pass<T: Float>(
    panels: &[Panel<T>],
    queue: &Tensor,
    negatives: Range<usize>,
    temperature: f64,
) -> Result<Vec<Partial<T>>, OpError> {
    let mut running: Vec<Running<T>> = panels.iter().map(Running::new).collect();
    let width = panels.iter().map(Panel::width).max().unwrap_or(0);
    let mut cosines = vec![T::zero(); BLOCK * width];
    for start in negatives.clone().step_by(BLOCK) {
        let len = BLOCK.min(negatives.end - start);
        // The copy has its rows close together, where those of the queue are pages apart.
        let block = Dense::rows(OP, &queue.narrow(1, start, len).in_op(OP)?)?;
        lend!(OP, T, [block] => for (panel, running) in panels.iter().zip(&mut running) {
            running.absorb(panel, block, &mut cosines[..len * panel.width()], temperature);
        });
    }
    Ok(running.into_iter().map(Running::finish).collect())
}

/// A [`Partial`] in the making.
struct Running<T> {
    partial: Partial<T>,
    /// The gradient's sums of the last blocks `[C, width]`.
    recent: Vec<T>,
    n_recent: usize,
}

impl<T: Float> Running<T> {
    fn new(panel: &Panel<T>) -> Self {
        let (c, width) = (panel.c, panel.width());
        let partial = Partial {
            reference: panel.positive.clone(),
            sum: vec![0.0; width],
            cosines: vec![0.0; width],
            positive_rank: vec![0; width],
            gradient: vec![0.0; c * width],
        };
        Self { partial, recent: vec![T::zero(); c * width], n_recent: 0 }
    }

    /// Takes in a block `[C, len]` of the queue; `cosines` `[len, width]` is overwritten.
    fn absorb(&mut self, panel: &Panel<T>, block: &[T], cosines: &mut [T], temperature: f64) {
        let (c, width) = (panel.c, panel.width());
        let len = cosines.len() / width;
        let keys = Matrix { numbers: block, row: 1, column: len, rows: len, columns: c };
        panel.multiply(keys, &panel.columns, cosines, Write::Set);
        vectorize(|| {
            for start in (0..width / LANES * LANES).step_by(LANES) {
                self.weigh::<LANES>(panel, start, cosines, temperature);
            }
            for start in (width / LANES * LANES..width).step_by(FEW) {
                self.weigh::<FEW>(panel, start, cosines, temperature);
            }
        });
        let keys = Matrix { numbers: block, row: len, column: 1, rows: c, columns: len };
        let sum = if self.n_recent == 0 { Write::Set } else { Write::Add };
        panel.multiply(keys, cosines, &mut self.recent, sum);
        self.n_recent += 1;
        if self.n_recent == RECENT {
            self.flush();
        }
    }

    /// Turns the cosines of `L` queries into weights e^((cosine − reference)/τ), and takes them in.
    #[inline(always)]
    fn weigh<const L: usize>(
        &mut self,
        panel: &Panel<T>,
        start: usize,
        cosines: &mut [T],
        temperature: f64,
    ) {
        let width = panel.width();
        let positive = lanes::<T, L>(&panel.positive, start);
        let mut largest = [T::of(f64::NEG_INFINITY); L];
        let mut total = [T::zero(); L];
        let mut positive_rank = [0_u32; L];
        for row in cosines.chunks_exact(width) {
            let row = lanes::<T, L>(row, start);
            for lane in 0..L {
                largest[lane] = if row[lane] > largest[lane] { row[lane] } else { largest[lane] };
                total[lane] += row[lane];
                // What is not below the positive ranks before it, NaN too.
                let is_below = row[lane] < positive[lane];
                positive_rank[lane] += u32::from(!is_below);
            }
        }
        for lane in 0..L {
            let excess = largest[lane].f64() - self.partial.reference[start + lane].f64();
            if excess > SLACK * temperature {
                self.raise_reference(start + lane, largest[lane], (-excess / temperature).exp());
            }
            self.partial.cosines[start + lane] += total[lane].f64();
            self.partial.positive_rank[start + lane] += positive_rank[lane];
        }
        let reference = lanes::<T, L>(&self.partial.reference, start);
        let per_cosine = T::of(1.0 / temperature);
        let mut sum = [T::zero(); L];
        for row in cosines.chunks_exact_mut(width) {
            let row = &mut row[start..start + L];
            for lane in 0..L {
                row[lane] = ((row[lane] - reference[lane]) * per_cosine).exp();
                sum[lane] += row[lane];
            }
        }
        for (total, sum) in self.partial.sum[start..].iter_mut().zip(sum) {
            *total += sum.f64();
        }
    }

    #[cold]
    fn raise_reference(&mut self, query: usize, reference: T, factor: f64) {
        let width = self.partial.reference.len();
        self.partial.reference[query] = reference;
        self.partial.sum[query] *= factor;
        for sum in self.partial.gradient.iter_mut().skip(query).step_by(width) {
            *sum *= factor;
        }
        for sum in self.recent.iter_mut().skip(query).step_by(width) {
            *sum *= T::of(factor);
        }
    }

    fn flush(&mut self) {
        self.n_recent = 0;
        vectorize(|| {
            for (sum, recent) in self.partial.gradient.iter_mut().zip(&self.recent) {
                *sum += recent.f64();
            }
        });
    }

    fn finish(mut self) -> Partial<T> {
        if self.n_recent > 0 {
            self.flush();
        }
        self.partial
    }
}

#[inline(always)]
fn lanes<T: Float, const L: usize>(row: &[T], start: usize) -> [T; L] {
    let row = &row[start..start + L];
    std::array::from_fn(|lane| row[lane])
}
