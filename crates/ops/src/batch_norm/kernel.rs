//! The passes over memory. Rows are pixels, columns are channels; sums run over fixed blocks of rows and
//! are added in order in f64, so they do not depend on the number of threads.

use rayon::prelude::*;

use crate::dense::Unwritten;
use crate::simd::{Float, vectorize};

/// Elements of a block of rows; fits the first-level cache twice.
const BLOCK_ELEMENTS: usize = 8 * 1024;
/// Columns summed at a time: one AVX-512 register of f32.
const LANES: usize = 16;

/// How rows are grouped and cut into blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    c: usize,
    groups: usize,
    /// Elements of a group.
    group: usize,
    /// Elements of a block; the last block of a group may be shorter.
    block: usize,
}

impl Rows {
    pub(super) fn new(elements: usize, c: usize, groups: usize) -> Self {
        Self { c, groups, group: elements / groups, block: (BLOCK_ELEMENTS / c).max(1) * c }
    }

    fn blocks_per_group(self) -> usize {
        self.group.div_ceil(self.block)
    }

    /// Sums over the blocks of each group: `partial(group, block range)` gives `[width·C]` values.
    fn reduce(
        self,
        width: usize,
        partial: impl Fn(usize, std::ops::Range<usize>) -> Vec<f64> + Sync,
        mut add: impl FnMut(&mut [f64], &[f64], usize),
    ) -> Vec<f64> {
        let per_group = self.blocks_per_group();
        let partials: Vec<Vec<f64>> = (0..self.groups * per_group)
            .into_par_iter()
            .map(|i| {
                let (group, block) = (i / per_group, i % per_group);
                let start = group * self.group + block * self.block;
                let end = (start + self.block).min((group + 1) * self.group);
                partial(group, start..end)
            })
            .collect();
        let mut totals = vec![0.0; self.groups * width * self.c];
        for (i, values) in partials.iter().enumerate() {
            let (group, block) = (i / per_group, i % per_group);
            let total = &mut totals[group * width * self.c..(group + 1) * width * self.c];
            add(total, values, block);
        }
        totals
    }
}

/// Scale and shift, `[groups, C]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine<'a, T> {
    pub(super) scale: &'a [T],
    pub(super) shift: &'a [T],
}

/// Σ g and Σ g·x̂ of each group and channel.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) plain: Vec<f64>,
    pub(super) with_x_hat: Vec<f64>,
}

/// What the input's gradient needs, `[groups, C]` (γ: `[C]`).
#[derive(Debug)]
pub(super) struct Normalization<'a> {
    pub(super) mean: &'a [f64],
    pub(super) inv_std: &'a [f64],
    pub(super) gamma: &'a [f64],
    pub(super) sums: &'a Sums,
}

/// Rows of `M` inputs that have the same shape, read without bounds checks: with them the loops would
/// not become vector code.
#[derive(Clone, Copy)]
struct Inputs<'a, T, const M: usize> {
    slices: [&'a [T]; M],
    len: usize,
}

impl<'a, T: Float, const M: usize> Inputs<'a, T, M> {
    fn new(slices: [&'a [T]; M]) -> Self {
        let len = slices.iter().map(|slice| slice.len()).min().unwrap_or(0);
        Self { slices, len }
    }

    fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self::new(self.slices.map(|slice| &slice[range.clone()]))
    }

    /// # Safety
    /// `i` is less than `len`.
    #[inline(always)]
    unsafe fn at(&self, i: usize) -> [T; M] {
        // SAFETY: each slice has at least `len` elements.
        self.slices.map(|slice| unsafe { *slice.get_unchecked(i) })
    }
}

/// Sums `value(inputs, column)` over rows for the `W` columns from `start`.
#[inline(always)]
fn column_sums<T: Float, const M: usize, const W: usize>(
    inputs: Inputs<'_, T, M>,
    c: usize,
    start: usize,
    value: impl Fn([T; M], usize) -> T,
    out: &mut [f64],
) {
    let mut sums = [T::zero(); W];
    for row in 0..inputs.len / c {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `row` is one of the whole rows, and the caller keeps `start + W` within a row.
            let values = unsafe { inputs.at(row * c + start + lane) };
            *sum += value(values, start + lane);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum.f64();
    }
}

/// [`column_sums`] over all columns, in registers where `LANES` columns are left.
#[inline(always)]
fn all_column_sums<T: Float, const M: usize>(
    inputs: Inputs<'_, T, M>,
    c: usize,
    value: impl Fn([T; M], usize) -> T,
) -> Vec<f64> {
    let mut out = vec![0.0; c];
    let whole = c / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let out = &mut out[start..start + LANES];
        column_sums::<T, M, LANES>(inputs, c, start, &value, out);
    }
    for start in whole..c {
        column_sums::<T, M, 1>(inputs, c, start, &value, &mut out[start..=start]);
    }
    out
}

/// Mean and biased variance `[groups, C]`: two passes within a block, blocks merged by Chan's formula.
pub(super) fn moments<T: Float>(x: &[T], rows: Rows) -> (Vec<f64>, Vec<f64>) {
    let c = rows.c;
    let partial = |_: usize, range: std::ops::Range<usize>| {
        let x = Inputs::new([&x[range]]);
        vectorize(|| {
            let n = to_f64(x.len / c);
            let mut out = all_column_sums(x, c, |[x], _| x);
            for value in &mut out {
                *value /= n;
            }
            let mean: Vec<T> = out.iter().map(|m| T::of(*m)).collect();
            let squares = all_column_sums(x, c, |[x], column| {
                let d = x - mean[column];
                d * d
            });
            // The mean was rounded to T: what is left of Σ(x − mean) corrects it.
            let rest = all_column_sums(x, c, |[x], column| x - mean[column]);
            for ((value, mean), rest) in out.iter_mut().zip(&mean).zip(&rest) {
                *value = mean.f64() + rest / n;
            }
            out.extend(squares.iter().zip(&rest).map(|(s, r)| s - r * r / n));
            out
        })
    };
    let merge = |total: &mut [f64], block: &[f64], block_idx: usize| {
        let before = to_f64(block_idx * rows.block / c);
        let n = to_f64((rows.group - block_idx * rows.block).min(rows.block) / c);
        for i in 0..c {
            let delta = block[i] - total[i];
            total[i] += delta * n / (before + n);
            total[c + i] += block[c + i] + delta * delta * before * n / (before + n);
        }
    };
    let merged = rows.reduce(2, partial, merge);
    let n = to_f64(rows.group / c);
    let part = |from: usize, divisor: f64| {
        merged.chunks(2 * c).flat_map(|g| &g[from..from + c]).map(|v| v / divisor).collect()
    };
    (part(0, 1.0), part(c, n))
}

/// Computes each element by `f(inputs, coefficients)`, with the group's coefficients of its channel; each
/// of the `K` coefficients is `[groups, C]`.
#[inline(always)]
fn map_rows<T: Float, const M: usize, const K: usize>(
    inputs: Inputs<'_, T, M>,
    rows: Rows,
    coefficients: [&[T]; K],
    f: impl Fn([T; M], [T; K]) -> T + Sync,
) -> Vec<T> {
    let mut result = Unwritten::new(inputs.len);
    result.elements().par_chunks_mut(rows.group).enumerate().for_each(|(group, out)| {
        let of_group = coefficients.map(|all| &all[group * rows.c..(group + 1) * rows.c]);
        let of_group = Inputs::new(of_group);
        out.par_chunks_mut(rows.block).enumerate().for_each(|(block, out)| {
            let start = group * rows.group + block * rows.block;
            let inputs = inputs.part(start..start + out.len());
            vectorize(|| {
                for (row, out) in out.chunks_exact_mut(rows.c).enumerate() {
                    for (i, out) in out.iter_mut().enumerate() {
                        // SAFETY: a row has `c` elements, as have the coefficients of a group.
                        out.write(unsafe { f(inputs.at(row * rows.c + i), of_group.at(i)) });
                    }
                }
            });
        });
    });
    // SAFETY: groups, blocks and rows cover all elements.
    unsafe { result.written() }
}

pub(super) fn affine<T: Float>(x: &[T], rows: Rows, by: Affine<'_, T>) -> Vec<T> {
    let coefficients = [by.scale, by.shift];
    map_rows(Inputs::new([x]), rows, coefficients, |[x], [scale, shift]| x * scale + shift)
}

pub(super) fn affine_relu<T: Float>(x: &[T], rows: Rows, by: Affine<'_, T>) -> Vec<T> {
    let coefficients = [by.scale, by.shift];
    map_rows(Inputs::new([x]), rows, coefficients, |[x], [scale, shift]| (x * scale + shift).relu())
}

pub(super) fn affine_add_relu<T: Float>(
    x: &[T],
    added: &[T],
    rows: Rows,
    by: Affine<'_, T>,
) -> Vec<T> {
    let coefficients = [by.scale, by.shift];
    map_rows(Inputs::new([x, added]), rows, coefficients, |[x, added], [scale, shift]| {
        (x * scale + shift + added).relu()
    })
}

/// ReLU's gradient: `dy` where `y > 0`.
pub(super) fn mask<T: Float>(dy: &[T], y: &[T]) -> Vec<T> {
    let mut out = vec![T::zero(); dy.len()];
    let blocks = out.par_chunks_mut(BLOCK_ELEMENTS);
    blocks.zip(dy.par_chunks(BLOCK_ELEMENTS)).zip(y.par_chunks(BLOCK_ELEMENTS)).for_each(
        |((out, dy), y)| {
            vectorize(|| {
                for ((out, dy), y) in out.iter_mut().zip(dy).zip(y) {
                    *out = if *y > T::zero() { *dy } else { T::zero() };
                }
            });
        },
    );
    out
}

pub(super) fn gradient_sums<T: Float>(
    x: &[T],
    g: &[T],
    rows: Rows,
    (mean, inv_std): (&[f64], &[f64]),
) -> Sums {
    let c = rows.c;
    let partial = |group: usize, range: std::ops::Range<usize>| {
        let both = Inputs::new([&x[range.clone()], &g[range]]);
        let mean: Vec<T> = mean[group * c..(group + 1) * c].iter().map(|m| T::of(*m)).collect();
        vectorize(|| {
            let mut out = all_column_sums(both, c, |[_, g], _| g);
            out.extend(all_column_sums(both, c, |[x, g], column| g * (x - mean[column])));
            out
        })
    };
    let add = |total: &mut [f64], block: &[f64], _: usize| {
        for (total, value) in total.iter_mut().zip(block) {
            *total += value;
        }
    };
    let sums = rows.reduce(2, partial, add);
    let part = |from: usize| sums.chunks(2 * c).flat_map(move |g| &g[from..from + c]).copied();
    Sums {
        plain: part(0).collect(),
        with_x_hat: part(c).zip(inv_std).map(|(sum, inv_std)| sum * inv_std).collect(),
    }
}

/// `dx = γ/σ·(g − Σg/n − x̂·Σ(g·x̂)/n)`, as `a·g + b·x + d` with three numbers per group and channel.
pub(super) fn input_gradient<T: Float>(
    x: &[T],
    g: &[T],
    rows: Rows,
    by: &Normalization<'_>,
) -> Vec<T> {
    let n = to_f64(rows.group / rows.c);
    let mut a = Vec::with_capacity(by.mean.len());
    let mut b = Vec::with_capacity(by.mean.len());
    let mut constant = Vec::with_capacity(by.mean.len());
    for i in 0..by.mean.len() {
        let slope = by.gamma[i % rows.c] * by.inv_std[i];
        let along_x = -slope * by.inv_std[i] * by.sums.with_x_hat[i] / n;
        a.push(T::of(slope));
        b.push(T::of(along_x));
        constant.push(T::of(-slope * by.sums.plain[i] / n - along_x * by.mean[i]));
    }
    map_rows(Inputs::new([x, g]), rows, [&a, &b, &constant], |[x, g], [a, b, constant]| {
        a * g + b * x + constant
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn to_f64(n: usize) -> f64 {
    n as f64
}
