//! Max pooling 3×3 with stride 2 and padding 1.

use std::hint::select_unpredictable;
use std::mem::MaybeUninit;

use candle_core::{Device, Tensor};

use super::gpu;
use crate::backend::{self, on_gpu};
use crate::dense::{Dense, Unwritten, by_dtype, channels_last, dims4, expect_shape, four, lend};
use crate::elementwise::for_each;
use crate::error::{InOp, OpError};
use crate::simd::{Float, vectorize};

const OP: &str = "max_pool";
const KERNEL: usize = 3;
const STRIDE: usize = 2;
/// Channels at a time: one AVX-512 register of f32.
const LANES: usize = 16;

/// A pooled batch and where each maximum was.
#[derive(Debug)]
pub struct MaxPooled {
    /// `[N, C, H_out, W_out]`.
    pub y: Tensor,
    /// Tap (0..9, row by row) of each maximum, u8 `[N, H_out, W_out, C]`.
    taps: Tensor,
}

/// The 3×3, stride 2, padding 1 max pooling of the ImageNet stem. Of equal values the first
/// in row-major order wins, and NaN wins over every number, as in PyTorch.
///
/// # Errors
/// If `x` is not `[N, C, H, W]`.
pub fn max_pool(x: &Tensor) -> Result<MaxPooled, OpError> {
    let [_, _, h, w] = dims4(OP, "x", x)?;
    if let Some(gpu) = backend::of(OP, x)? {
        let (y, taps) = gpu::max(&*gpu, x, [out_size(h), out_size(w)])?;
        return Ok(MaxPooled { y, taps });
    }
    by_dtype!(OP, x, forward(x))
}

/// The gradient of [`max_pool`]'s input of shape `dims` from the gradient `dy` of its output.
///
/// # Errors
/// If the shapes do not fit.
pub fn max_pool_backward(
    pooled: &MaxPooled,
    dims: &[usize],
    dy: &Tensor,
) -> Result<Tensor, OpError> {
    let [n, c, h, w] = four(OP, "dims", dims)?;
    expect_shape(OP, "y", &pooled.y, &[n, c, out_size(h), out_size(w)])?;
    expect_shape(OP, "dy", dy, pooled.y.dims())?;
    on_gpu!(OP, dy, gpu::max_backward, &pooled.taps, [n, c, h, w], dy);
    by_dtype!(OP, dy, backward(&pooled.taps, [n, c, h, w], dy))
}

fn out_size(size: usize) -> usize {
    (size + 2 - KERNEL) / STRIDE + 1
}

/// Pixels that matter for one pixel, at most `M`: where their channels start, and a tap.
#[derive(Clone, Copy)]
struct Pixels<const M: usize> {
    all: [(usize, u8); M],
    len: usize,
}

impl<const M: usize> Pixels<M> {
    fn none() -> Self {
        Self { all: [(0, 0); M], len: 0 }
    }

    /// Pairs of rows and columns, each with its part of the tap (0..3), row by row.
    fn new(
        rows: impl Iterator<Item = (usize, u8)>,
        columns: &(impl Iterator<Item = (usize, u8)> + Clone),
        start: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let mut pixels = Self::none();
        for (y, tap_y) in rows {
            for (x, tap_x) in columns.clone() {
                pixels.all[pixels.len] = (start(y, x), 3 * tap_y + tap_x);
                pixels.len += 1;
            }
        }
        pixels
    }

    /// The same pixels this many elements further on; cheaper than computing them again.
    fn shift(&mut self, elements: usize) {
        for (start, _) in &mut self.all {
            *start += elements;
        }
    }

    fn get(&self) -> &[(usize, u8)] {
        &self.all[..self.len]
    }
}

/// Input positions under an output position, each with its tap.
fn inputs(out: usize, size: usize) -> impl Iterator<Item = (usize, u8)> + Clone {
    let all = (0..3_u8).map(move |tap| ((out * STRIDE + usize::from(tap)).checked_sub(1), tap));
    all.filter_map(move |(i, tap)| i.filter(|i| *i < size).map(|i| (i, tap)))
}

/// Output positions that see an input position, each with the tap at which they see it.
fn outputs(input: usize, size: usize) -> impl Iterator<Item = (usize, u8)> + Clone {
    let all = if input.is_multiple_of(STRIDE) {
        [Some((input / STRIDE, 1)), None]
    } else {
        [Some((input / STRIDE, 2)), Some((input / STRIDE + 1, 0))]
    };
    all.into_iter().flatten().filter(move |(out, _)| *out < size)
}

/// Calls `$lanes::<T, LANES>($start, …)` and then `$lanes::<T, 1>` for the channels that are left.
macro_rules! each_channel {
    ($c:expr, $lanes:ident($($argument:expr),*)) => {
        let whole = $c / LANES * LANES;
        for start in (0..whole).step_by(LANES) {
            $lanes::<T, LANES>(start, $($argument),*);
        }
        for start in whole..$c {
            $lanes::<T, 1>(start, $($argument),*);
        }
    };
}

fn forward<T: Float>(x: &Tensor) -> Result<MaxPooled, OpError> {
    let [n, c, h, w] = dims4(OP, "x", x)?;
    let (ho, wo) = (out_size(h), out_size(w));
    let x = Dense::channels_last(OP, x)?;
    let mut y = Unwritten::<T>::new(n * ho * wo * c);
    let mut taps = Unwritten::<u8>::new(n * ho * wo * c);
    lend!(OP, T, [x] => {
        let y = y.elements().chunks_mut((wo * c).max(1));
        let rows = y.zip(taps.elements().chunks_mut((wo * c).max(1)));
        for_each(x.len(), rows, |row, (y, taps)| {
            let image = &x[row / ho * h * w * c..(row / ho + 1) * h * w * c];
            let pixels = y.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c));
            vectorize(|| {
                let start = |y: usize, x: usize| (y * w + x) * c;
                let mut seen = Pixels::<9>::none();
                for (i, (y, taps)) in pixels.enumerate() {
                    if i >= 2 && i * STRIDE + 1 < w {
                        seen.shift(STRIDE * c);
                    } else {
                        seen = Pixels::new(inputs(row % ho, h), &inputs(i, w), start);
                    }
                    each_channel!(c, largest(image, seen.get(), y, taps));
                }
            });
        });
    });
    // SAFETY: every channel of every pixel of every row was written.
    let (y, taps) = unsafe { (y.written(), taps.written()) };
    let taps = Tensor::from_vec(taps, (n, ho, wo, c), &Device::Cpu).in_op(OP)?;
    Ok(MaxPooled { y: channels_last(OP, y, [n, c, ho, wo])?, taps })
}

/// The `L` elements from `start`.
#[inline(always)]
fn lanes<T: Copy, const L: usize>(row: &[T], start: usize) -> [T; L] {
    let row = &row[start..start + L];
    std::array::from_fn(|lane| row[lane])
}

/// The largest of `L` channels over pixels of the input, and its tap.
///
/// With `if` instead of `select_unpredictable` the compiler branches for each lane, 12 times slower.
#[inline(always)]
fn largest<T: Float, const L: usize>(
    start: usize,
    image: &[T],
    pixels: &[(usize, u8)],
    y: &mut [MaybeUninit<T>],
    taps: &mut [MaybeUninit<u8>],
) {
    // The first pixel, should no value be larger than −∞. Taps are as wide as values in registers.
    let mut best = [T::of(f64::NEG_INFINITY); L];
    let mut best_tap = [u32::from(pixels.first().map_or(0, |(_, tap)| *tap)); L];
    for (pixel, tap) in pixels {
        let x = lanes::<T, L>(image, pixel + start);
        for lane in 0..L {
            let x = x[lane];
            #[expect(clippy::eq_op, reason = "the test for NaN")]
            let wins = (x > best[lane]) | (x != x);
            best[lane] = select_unpredictable(wins, x, best[lane]);
            best_tap[lane] = select_unpredictable(wins, u32::from(*tap), best_tap[lane]);
        }
    }
    for (y, best) in y[start..][..L].iter_mut().zip(best) {
        y.write(best);
    }
    for (tap, best) in taps[start..][..L].iter_mut().zip(best_tap) {
        #[expect(clippy::cast_possible_truncation, reason = "a tap is below 9")]
        tap.write(best as u8);
    }
}

/// Each input pixel gathers from the output pixels that see it, so that no two threads write to one.
fn backward<T: Float>(
    taps: &Tensor,
    [n, c, h, w]: [usize; 4],
    dy: &Tensor,
) -> Result<Tensor, OpError> {
    let (ho, wo) = (out_size(h), out_size(w));
    let (taps, dy) = (Dense::rows(OP, taps)?, Dense::channels_last(OP, dy)?);
    let mut dx = Unwritten::<T>::new(n * h * w * c);
    taps.with(OP, |taps: &[u8]| {
        Ok(lend!(OP, T, [dy] => {
            let rows = dx.elements().chunks_mut((w * c).max(1));
            for_each(n * h * w * c, rows, |row, dx| {
                let image = row / h * ho * wo * c..(row / h + 1) * ho * wo * c;
                let (dy, taps) = (&dy[image.clone()], &taps[image]);
                vectorize(|| {
                    for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
                        let start = |y: usize, x: usize| (y * wo + x) * c;
                        let seen = Pixels::<4>::new(outputs(row % h, ho), &outputs(i, wo), start);
                        each_channel!(c, gathered(dy, taps, seen.get(), dx));
                    }
                });
            });
        }))
    })?;
    // SAFETY: every channel of every pixel of every row was written.
    channels_last(OP, unsafe { dx.written() }, [n, c, h, w])
}

/// The sum over the output pixels whose maximum `L` channels of an input pixel are.
#[inline(always)]
fn gathered<T: Float, const L: usize>(
    start: usize,
    dy: &[T],
    taps: &[u8],
    pixels: &[(usize, u8)],
    dx: &mut [MaybeUninit<T>],
) {
    let mut sums = [T::zero(); L];
    for (pixel, tap) in pixels {
        let dy = lanes::<T, L>(dy, pixel + start);
        let taps = lanes::<u8, L>(taps, pixel + start);
        for lane in 0..L {
            sums[lane] += select_unpredictable(taps[lane] == *tap, dy[lane], T::zero());
        }
    }
    for (dx, sum) in dx[start..][..L].iter_mut().zip(sums) {
        dx.write(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;

    /// PyTorch's `max_pool2d(x, 3, 2, 1)`: a NaN wins, the last of several is the one whose place is
    /// kept, and where nothing exceeds −∞ the window's first pixel is the maximum.
    #[test]
    fn nan_and_infinity_are_pytorchs() {
        let cases: [([f64; 4], f64, usize); 6] = [
            ([1.0, 2.0, 0.0, 0.0], 2.0, 1),
            ([1.0, NAN, 5.0, 0.0], NAN, 1),
            ([NAN, 1.0, NAN, 2.0], NAN, 2),
            ([-INF, -INF, -INF, -INF], -INF, 0),
            ([-INF, -INF, -3.0, -INF], -3.0, 2),
            ([0.0, INF, INF, NAN], NAN, 3),
        ];
        for channels in [1, LANES + 1] {
            for (window, expected, place) in &cases {
                let x: Vec<f64> = window.repeat(channels);
                let x = Tensor::from_vec(x, (1, channels, 2, 2), &Device::Cpu).unwrap();
                let pooled = max_pool(&x).unwrap();
                let dy = Tensor::full(3.0, pooled.y.dims(), &Device::Cpu).unwrap();
                let dx = max_pool_backward(&pooled, x.dims(), &dy).unwrap();
                let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for y in numbers(&pooled.y) {
                    assert!(y == *expected || y.is_nan() && expected.is_nan(), "{window:?}: {y}");
                }
                let mut of_window = [0.0; 4];
                of_window[*place] = 3.0;
                assert_eq!(numbers(&dx), of_window.repeat(channels), "{window:?}");
            }
        }
    }
}
