//! The passes over memory. Rows are pixels, columns are channels; sums run over fixed blocks of rows and
//! are added in order in f64, so they do not depend on the number of threads.
//!
//! The inner loops run over a period: as many rows as make some hundred numbers, with coefficients
//! repeated as often. So they are long and made of whole vectors for any usual number of channels.

use std::ops::Range;

use rayon::prelude::*;

use crate::dense::Unwritten;
use crate::simd::{Float, vectorize};

/// Most numbers of a period, unless a row has more.
const PERIOD: usize = 512;
/// Numbers that are summed in the precision of the tensor before they are added in f64.
const CHUNK: usize = 16 * 1024;
/// Chunks of a block, the share of work that a thread takes.
const CHUNKS: usize = 4;

/// How rows are grouped and cut; lengths in numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    c: usize,
    groups: usize,
    group: usize,
    period: usize,
    chunk: usize,
    block: usize,
}

/// A block's numbers and the group that they belong to.
#[derive(Debug, Clone)]
struct Block {
    group: usize,
    range: Range<usize>,
}

impl Rows {
    pub(super) fn new(len: usize, c: usize, groups: usize) -> Self {
        let period = (1 << (PERIOD / c).max(1).ilog2()) * c;
        let chunk = (CHUNK / period).max(1) * period;
        Self { c, groups, group: len / groups, period, chunk, block: CHUNKS * chunk }
    }

    fn blocks(self) -> Vec<Block> {
        let of_group = |group: usize| {
            let (first, end) = (group * self.group, (group + 1) * self.group);
            let starts = (first..end).step_by(self.block);
            starts.map(move |start| Block { group, range: start..(start + self.block).min(end) })
        };
        (0..self.groups).flat_map(of_group).collect()
    }

    /// An output with one number for each of the input, cut into blocks.
    fn cut<T>(self, out: &mut [T]) -> Vec<&mut [T]> {
        out.chunks_mut(self.group).flat_map(|group| group.chunks_mut(self.block)).collect()
    }

    /// Two sums for each channel of each block, `[blocks, 2, C]`; `work` adds to those of its block.
    fn block_sums<B: Send>(self, blocks: Vec<B>, work: impl Fn(B, &mut [f64]) + Sync) -> Vec<f64> {
        let mut sums = vec![0.0; blocks.len() * 2 * self.c];
        let of_blocks = sums.par_chunks_mut(2 * self.c).zip(blocks);
        of_blocks.for_each(|(sums, block)| work(block, sums));
        sums
    }

    /// Coefficients `[groups, C]` repeated to the length of a period in each group.
    fn repeat<T: Float>(self, coefficients: &[T]) -> Vec<T> {
        coefficients
            .chunks(self.c)
            .flat_map(|of_group| of_group.repeat(self.period / self.c))
            .collect()
    }

    /// The part of [`Rows::repeat`] that belongs to a group.
    fn of_group(self, group: usize) -> Range<usize> {
        group * self.period..(group + 1) * self.period
    }
}

/// `M` arrays of the same length, read without bounds checks: with them the loops would not become
/// vector code.
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

    #[inline(always)]
    fn part(&self, range: Range<usize>) -> Self {
        let len = range.len();
        Self { slices: self.slices.map(|slice| &slice[range.clone()]), len }
    }

    /// # Safety
    /// `i` is less than `len`.
    #[inline(always)]
    unsafe fn at(&self, i: usize) -> [T; M] {
        // SAFETY: each slice has at least `len` elements.
        self.slices.map(|slice| unsafe { *slice.get_unchecked(i) })
    }
}

/// Adds `value(i)` to two arrays; a function, because the compiler knows that its arguments do not overlap.
#[inline(always)]
fn accumulate<T: Float>(a: &mut [T], b: &mut [T], value: impl Fn(usize) -> [T; 2]) {
    for (i, (a, b)) in a.iter_mut().zip(b).enumerate() {
        let [to_a, to_b] = value(i);
        *a += to_a;
        *b += to_b;
    }
}

/// Adds to `out` `[2, C]` the sums of `value(inputs, coefficients)` over a chunk.
#[inline(always)]
fn add_sums<T: Float, const M: usize, const K: usize>(
    rows: Rows,
    chunk: Inputs<'_, T, M>,
    coefficients: Inputs<'_, T, K>,
    value: impl Fn([T; M], [T; K]) -> [T; 2],
    out: &mut [f64],
) {
    let mut sums = vec![T::zero(); 2 * rows.period];
    let (a, b) = sums.split_at_mut(rows.period);
    vectorize(
        #[inline(always)]
        move || {
            let coefficients = coefficients.part(0..rows.period);
            for start in (0..chunk.len).step_by(rows.period) {
                let row = chunk.part(start..(start + rows.period).min(chunk.len));
                accumulate(&mut a[..row.len], &mut b[..row.len], |i| {
                    // SAFETY: `i` is below the length of the row, and coefficients have a whole period.
                    unsafe { value(row.at(i), coefficients.at(i)) }
                });
            }
        },
    );
    let (out_a, out_b) = out.split_at_mut(rows.c);
    for (out, sums) in [out_a, out_b].into_iter().zip(sums.chunks(rows.period)) {
        for row in sums.chunks_exact(rows.c) {
            out.iter_mut().zip(row).for_each(|(out, sum)| *out += sum.f64());
        }
    }
}

/// Mean and biased variance `[groups, C]`; blocks are merged by Chan's formula.
pub(super) fn moments<T: Float>(x: &[T], rows: Rows) -> (Vec<f64>, Vec<f64>) {
    let c = rows.c;
    let sums = rows.block_sums(rows.blocks(), |Block { range, .. }, out| {
        block_moments(&x[range], rows, out);
    });
    let (mut mean, mut variance) = (vec![0.0; rows.groups * c], vec![0.0; rows.groups * c]);
    for (Block { group, range }, of_block) in rows.blocks().iter().zip(sums.chunks(2 * c)) {
        let before = to_f64((range.start - group * rows.group) / c);
        let n = to_f64(range.len() / c);
        let (share, spread) = (n / (before + n), before * n / (before + n));
        let of_group = group * c..(group + 1) * c;
        let totals = mean[of_group.clone()].iter_mut().zip(&mut variance[of_group]);
        let (means, squares) = of_block.split_at(c);
        for ((mean, variance), (of_block, squares)) in totals.zip(means.iter().zip(squares)) {
            let delta = of_block - *mean;
            *mean += delta * share;
            *variance += squares + delta * delta * spread;
        }
    }
    let n = to_f64(rows.group / c);
    variance.iter_mut().for_each(|squares| *squares /= n);
    (mean, variance)
}

/// Mean and Σ (x − mean)² `[2, C]` from one pass over distances to the mean of the first chunk.
///
/// Let that chunk be a share f of the block. However far from the rest it lies, it adds to the block's
/// variance as well, so the squares that cancel are at most 1/f times what is left.
fn block_moments<T: Float>(x: &[T], rows: Rows, out: &mut [f64]) {
    let c = rows.c;
    let first = &x[..rows.chunk.min(x.len())];
    let mut of_first = vec![0.0; 2 * c];
    let itself = |[x]: [T; 1], []: [T; 0]| [x, T::zero()];
    add_sums(rows, Inputs::new([first]), Inputs::new([]), itself, &mut of_first);
    let near: Vec<T> = of_first[..c].iter().map(|v| T::of(v / to_f64(first.len() / c))).collect();
    let repeated = rows.repeat(&near);
    for chunk in x.chunks(rows.chunk) {
        let distances = |[x]: [T; 1], [near]: [T; 1]| [x - near, (x - near) * (x - near)];
        add_sums(rows, Inputs::new([chunk]), Inputs::new([&repeated[..]]), distances, out);
    }
    let n = to_f64(x.len() / c);
    let (mean, squares) = out.split_at_mut(c);
    for ((mean, squares), near) in mean.iter_mut().zip(squares).zip(near) {
        *squares -= *mean * *mean / n;
        *mean = near.f64() + *mean / n;
    }
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
    let coefficients = coefficients.map(|all| rows.repeat(all));
    let coefficients = Inputs::new(coefficients.each_ref().map(|all| &all[..]));
    let mut result = Unwritten::new(inputs.len);
    let blocks = rows.cut(result.elements()).into_par_iter().zip(rows.blocks());
    blocks.for_each(|(out, Block { group, range })| {
        let (inputs, coefficients) = (inputs.part(range), coefficients.part(rows.of_group(group)));
        let f = &f;
        vectorize(
            #[inline(always)]
            move || {
                let coefficients = coefficients.part(0..rows.period);
                for (row, out) in out.chunks_mut(rows.period).enumerate() {
                    let start = row * rows.period;
                    let inputs = inputs.part(start..start + out.len());
                    write(out, |i| {
                        // SAFETY: `i` is below the length of the row; coefficients have a whole period.
                        unsafe { f(inputs.at(i), coefficients.at(i)) }
                    });
                }
            },
        );
    });
    // SAFETY: groups, blocks and rows cover all elements.
    unsafe { result.written() }
}

/// Writes `value(i)`; a function, because the compiler knows that its arguments do not overlap.
#[inline(always)]
fn write<T>(out: &mut [std::mem::MaybeUninit<T>], value: impl Fn(usize) -> T) {
    for (i, out) in out.iter_mut().enumerate() {
        out.write(value(i));
    }
}

/// Scale and shift of each group and channel, `[groups, C]`.
#[derive(Debug, Clone)]
pub(super) struct Affine<T> {
    pub(super) scale: Vec<T>,
    pub(super) shift: Vec<T>,
}

impl<T> Affine<T> {
    fn coefficients(&self) -> [&[T]; 2] {
        [&self.scale, &self.shift]
    }
}

pub(super) fn affine<T: Float>(x: &[T], rows: Rows, by: &Affine<T>) -> Vec<T> {
    let f = |[x]: [T; 1], [scale, shift]: [T; 2]| x * scale + shift;
    map_rows(Inputs::new([x]), rows, by.coefficients(), f)
}

pub(super) fn affine_relu<T: Float>(x: &[T], rows: Rows, by: &Affine<T>) -> Vec<T> {
    let f = |[x]: [T; 1], [scale, shift]: [T; 2]| (x * scale + shift).relu();
    map_rows(Inputs::new([x]), rows, by.coefficients(), f)
}

pub(super) fn affine_add_relu<T: Float>(
    x: &[T],
    added: &[T],
    rows: Rows,
    by: &Affine<T>,
) -> Vec<T> {
    let f = |[x, added]: [T; 2], [scale, shift]: [T; 2]| (x * scale + shift + added).relu();
    map_rows(Inputs::new([x, added]), rows, by.coefficients(), f)
}

/// The gradient g of the normalization's output.
#[derive(Debug)]
pub(super) enum Gradient<'a, T> {
    /// Itself.
    Plain(&'a [T]),
    /// That of ReLU's output: g is `dy` where the normalization's output is above 0. To compute it again
    /// is cheaper than to read it.
    OfRelu(&'a [T], &'a Affine<T>),
}

/// Σ g and Σ g·x̂ of each group and channel.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) plain: Vec<f64>,
    pub(super) with_x_hat: Vec<f64>,
}

/// The source of mean and variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// From the input, which has a gradient through them.
    Batch,
    /// From before: they are constants.
    Running,
}

/// Mean, 1/σ `[groups, C]` and γ `[C]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalization<'a> {
    pub(super) origin: Origin,
    pub(super) mean: &'a [f64],
    pub(super) inv_std: &'a [f64],
    pub(super) gamma: &'a [f64],
}

#[inline(always)]
fn where_positive<T: Float>(y: T, dy: T) -> T {
    if y > T::zero() { dy } else { T::zero() }
}

/// Sums of a block for [`Sums`].
#[inline(always)]
fn g_and_product<T: Float>(g: T, x: T, mean: T) -> [T; 2] {
    [g, g * (x - mean)]
}

/// The input's gradient and its sums.
pub(super) fn gradients<T: Float>(
    x: &[T],
    g: &Gradient<'_, T>,
    rows: Rows,
    by: Normalization<'_>,
) -> (Vec<T>, Sums) {
    let sums = gradient_sums(x, g, rows, by);
    (input_gradient(x, g, rows, by, &sums), sums)
}

fn gradient_sums<T: Float>(
    x: &[T],
    g: &Gradient<'_, T>,
    rows: Rows,
    by: Normalization<'_>,
) -> Sums {
    let mean = rounded(by.mean);
    let sums = match *g {
        Gradient::Plain(g) => {
            sum_rows(Inputs::new([x, g]), rows, [&mean], |[x, g], [mean]| g_and_product(g, x, mean))
        }
        Gradient::OfRelu(dy, Affine { scale, shift }) => {
            let coefficients = [&mean[..], scale, shift];
            sum_rows(Inputs::new([x, dy]), rows, coefficients, |[x, dy], [mean, scale, shift]| {
                g_and_product(where_positive(x * scale + shift, dy), x, mean)
            })
        }
    };
    total(&sums, &mean, rows, by)
}

/// [`Rows::block_sums`] of `value(inputs, coefficients)`.
#[inline(always)]
fn sum_rows<T: Float, const M: usize, const K: usize>(
    inputs: Inputs<'_, T, M>,
    rows: Rows,
    coefficients: [&[T]; K],
    value: impl Fn([T; M], [T; K]) -> [T; 2] + Sync,
) -> Vec<f64> {
    let coefficients = coefficients.map(|all| rows.repeat(all));
    let coefficients = Inputs::new(coefficients.each_ref().map(|all| &all[..]));
    rows.block_sums(rows.blocks(), |Block { group, range }, out| {
        let coefficients = coefficients.part(rows.of_group(group));
        for start in range.clone().step_by(rows.chunk) {
            let chunk = inputs.part(start..(start + rows.chunk).min(range.end));
            add_sums(rows, chunk, coefficients, &value, out);
        }
    })
}

/// [`gradient_sums`] from the gradient of the output `y` of ReLU; also gives g, `dy` where `y > 0`, which
/// is written while it is in the cache.
pub(super) fn masked_gradient_sums<T: Float>(
    [x, y, dy]: [&[T]; 3],
    rows: Rows,
    by: Normalization<'_>,
) -> (Vec<T>, Sums) {
    let mean = rounded(by.mean);
    let repeated = rows.repeat(&mean);
    let mut masked = Unwritten::new(x.len());
    let blocks = rows.blocks().into_iter().zip(rows.cut(masked.elements())).collect();
    let sums = rows.block_sums(blocks, |(Block { group, range }, part): (_, &mut [_]), out| {
        let mean = Inputs::new([&repeated[rows.of_group(group)]]);
        let starts = range.clone().step_by(rows.chunk);
        for (start, masked) in starts.zip(part.chunks_mut(rows.chunk)) {
            let chunk = start..start + masked.len();
            let both = Inputs::new([&y[chunk.clone()], &dy[chunk.clone()]]);
            vectorize(
                #[inline(always)]
                || {
                    let both = both.part(0..both.len);
                    write(masked, |i| {
                        // SAFETY: `i` is below the length of the chunk.
                        let [y, dy] = unsafe { both.at(i) };
                        where_positive(y, dy)
                    });
                },
            );
            // SAFETY: the whole chunk was written.
            let g = unsafe { masked.assume_init_ref() };
            let inputs = Inputs::new([&x[chunk], g]);
            add_sums(rows, inputs, mean, |[x, g], [mean]| g_and_product(g, x, mean), out);
        }
    });
    // SAFETY: blocks and chunks cover all elements.
    (unsafe { masked.written() }, total(&sums, &mean, rows, by))
}

/// Adds the sums of blocks. They were taken with the mean `rounded` to the tensor's precision.
fn total<T: Float>(sums: &[f64], rounded: &[T], rows: Rows, by: Normalization<'_>) -> Sums {
    let c = rows.c;
    let (mut plain, mut products) = (vec![0.0; by.mean.len()], vec![0.0; by.mean.len()]);
    for (Block { group, .. }, of_block) in rows.blocks().iter().zip(sums.chunks(2 * c)) {
        let of_group = group * c..(group + 1) * c;
        let totals = plain[of_group.clone()].iter_mut().chain(&mut products[of_group]);
        totals.zip(of_block).for_each(|(total, sum)| *total += sum);
    }
    for (i, product) in products.iter_mut().enumerate() {
        let rest = plain[i] * (by.mean[i] - rounded[i].f64());
        *product = (*product - rest) * by.inv_std[i];
    }
    Sums { plain, with_x_hat: products }
}

/// `dx = γ/σ·(g − Σg/n − x̂·Σ(g·x̂)/n)`, as `a·g + b·x + d` with three numbers per group and channel; the sums
/// are the way through the statistics, which constants do not have.
pub(super) fn input_gradient<T: Float>(
    x: &[T],
    g: &Gradient<'_, T>,
    rows: Rows,
    by: Normalization<'_>,
    sums: &Sums,
) -> Vec<T> {
    let n = to_f64(rows.group / rows.c);
    let mut a = Vec::with_capacity(by.mean.len());
    let mut b = Vec::with_capacity(by.mean.len());
    let mut d = Vec::with_capacity(by.mean.len());
    for i in 0..by.mean.len() {
        let slope = by.gamma[i % rows.c] * by.inv_std[i];
        let (plain, with_x_hat) = match by.origin {
            Origin::Batch => (sums.plain[i], sums.with_x_hat[i]),
            Origin::Running => (0.0, 0.0),
        };
        let along_x = -slope * by.inv_std[i] * with_x_hat / n;
        a.push(T::of(slope));
        b.push(T::of(along_x));
        d.push(T::of(-slope * plain / n - along_x * by.mean[i]));
    }
    match *g {
        Gradient::Plain(g) => {
            map_rows(Inputs::new([x, g]), rows, [&a, &b, &d], |[x, g], [a, b, d]| a * g + b * x + d)
        }
        Gradient::OfRelu(dy, Affine { scale, shift }) => {
            let coefficients = [&a[..], &b, &d, scale, shift];
            map_rows(
                Inputs::new([x, dy]),
                rows,
                coefficients,
                |[x, dy], [a, b, d, scale, shift]| {
                    a * where_positive(x * scale + shift, dy) + b * x + d
                },
            )
        }
    }
}

fn rounded<T: Float>(values: &[f64]) -> Vec<T> {
    values.iter().map(|value| T::of(*value)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn to_f64(n: usize) -> f64 {
    n as f64
}
