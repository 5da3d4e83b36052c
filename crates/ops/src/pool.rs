//! Max pooling 3×3 with stride 2 and padding 1, and global average pooling.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::dense::{
    Dense, by_dtype, channels_last, dims2, dims4, expect_shape, lend, shape, tensor,
};
use crate::error::OpError;
use crate::simd::Float;

const OP: &str = "max_pool";
const KERNEL: usize = 3;
const STRIDE: usize = 2;

/// A pooled batch and where each maximum was.
#[derive(Debug)]
pub struct MaxPooled {
    /// `[N, C, H_out, W_out]`.
    pub y: Tensor,
    /// Tap (0..9, row by row) of each maximum, channels last.
    taps: Vec<u8>,
}

/// The 3×3, stride 2, padding 1 max pooling of the ImageNet stem, f32 or f64. Of equal values the first
/// in row-major order wins, as in PyTorch.
///
/// # Errors
/// If `x` is not `[N, C, H, W]`, f32 or f64.
pub fn max_pool(x: &Tensor) -> Result<MaxPooled, OpError> {
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
    expect_shape(OP, "dy", dy, pooled.y.dims())?;
    let &[n, c, h, w] = dims else {
        return Err(shape(OP, "dims", "[N, C, H, W]", dims));
    };
    by_dtype!(OP, dy, backward(&pooled.taps, [n, c, h, w], dy))
}

fn out_size(size: usize) -> usize {
    (size + 2 - KERNEL) / STRIDE + 1
}

/// Input position of a tap, if it is inside the image.
fn input(out: usize, tap: usize, size: usize) -> Option<usize> {
    (out * STRIDE + tap).checked_sub(1).filter(|i| *i < size)
}

fn forward<T: Float>(x: &Tensor) -> Result<MaxPooled, OpError> {
    let [n, c, h, w] = dims4(OP, "x", x)?;
    let (ho, wo) = (out_size(h), out_size(w));
    let x = Dense::channels_last(OP, x)?;
    let mut y = vec![T::of(f64::NEG_INFINITY); n * ho * wo * c];
    let mut taps = vec![0_u8; y.len()];
    lend!(OP, T, [x] => {
        let rows = y.par_chunks_mut(wo * c).zip(taps.par_chunks_mut(wo * c));
        rows.enumerate().for_each(|(row, (y, taps))| {
            let image = &x[row / ho * h * w * c..(row / ho + 1) * h * w * c];
            for (i, (y, taps)) in y.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c)).enumerate() {
                for tap in 0..9_u8 {
                    let (dy, dx) = (usize::from(tap / 3), usize::from(tap % 3));
                    let (Some(iy), Some(ix)) = (input(row % ho, dy, h), input(i, dx, w)) else {
                        continue;
                    };
                    let pixel = &image[(iy * w + ix) * c..(iy * w + ix + 1) * c];
                    for ((y, taps), x) in y.iter_mut().zip(taps.iter_mut()).zip(pixel) {
                        if *x > *y {
                            *y = *x;
                            *taps = tap;
                        }
                    }
                }
            }
        });
    });
    Ok(MaxPooled { y: channels_last(OP, y, [n, c, ho, wo])?, taps })
}

fn backward<T: Float>(
    taps: &[u8],
    [n, c, h, w]: [usize; 4],
    dy: &Tensor,
) -> Result<Tensor, OpError> {
    let (ho, wo) = (out_size(h), out_size(w));
    expect_shape(OP, "dy", dy, &[n, c, ho, wo])?;
    let dy = Dense::channels_last(OP, dy)?;
    let mut dx = vec![T::zero(); n * h * w * c];
    lend!(OP, T, [dy] => {
        dx.par_chunks_mut(h * w * c).enumerate().for_each(|(image, dx)| {
            let of_image = image * ho * wo * c..(image + 1) * ho * wo * c;
            for (i, (tap, dy)) in taps[of_image.clone()].iter().zip(&dy[of_image]).enumerate() {
                let (pixel, channel) = (i / c, i % c);
                let (y, x) = (pixel / wo * STRIDE, pixel % wo * STRIDE);
                // The tap was inside the image, so neither sum is 0.
                let (iy, ix) = (y + usize::from(tap / 3) - 1, x + usize::from(tap % 3) - 1);
                dx[(iy * w + ix) * c + channel] += *dy;
            }
        });
    });
    channels_last(OP, dx, [n, c, h, w])
}

/// The mean over the pixels of `x` `[N, C, H, W]`; gives `[N, C]`.
///
/// # Errors
/// If `x` is not `[N, C, H, W]`, f32 or f64.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor, OpError> {
    by_dtype!("global_average_pool", x, average(x))
}

/// The gradient of [`global_average_pool`]'s input of shape `dims` from `dy` `[N, C]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn global_average_pool_backward(dims: &[usize], dy: &Tensor) -> Result<Tensor, OpError> {
    by_dtype!("global_average_pool", dy, spread(dims, dy))
}

fn average<T: Float>(x: &Tensor) -> Result<Tensor, OpError> {
    let op = "global_average_pool";
    let [n, c, h, w] = dims4(op, "x", x)?;
    let x = Dense::channels_last(op, x)?;
    let mut y = vec![T::zero(); n * c];
    lend!(op, T, [x] => {
        y.par_chunks_mut(c).zip(x.par_chunks(h * w * c)).for_each(|(y, x)| {
            for pixel in x.chunks_exact(c) {
                for (y, x) in y.iter_mut().zip(pixel) {
                    *y += *x;
                }
            }
            for y in y {
                *y /= T::of(f64::from(u32::try_from(h * w).unwrap_or(u32::MAX)));
            }
        });
    });
    tensor(op, y, (n, c))
}

fn spread<T: Float>(dims: &[usize], dy: &Tensor) -> Result<Tensor, OpError> {
    let op = "global_average_pool";
    let [n, c] = dims2(op, "dy", dy)?;
    let &[_, _, h, w] = dims else {
        return Err(shape(op, "dims", "[N, C, H, W]", dims));
    };
    expect_shape(op, "dy", dy, &dims[..2])?;
    let dy = Dense::rows(op, dy)?;
    let mut dx = vec![T::zero(); n * h * w * c];
    lend!(op, T, [dy] => {
        dx.par_chunks_mut(h * w * c).zip(dy.par_chunks(c)).for_each(|(dx, dy)| {
            let pixels = T::of(f64::from(u32::try_from(h * w).unwrap_or(u32::MAX)));
            for pixel in dx.chunks_exact_mut(c) {
                for (dx, dy) in pixel.iter_mut().zip(dy) {
                    *dx = *dy / pixels;
                }
            }
        });
    });
    channels_last(op, dx, [n, c, h, w])
}
