//! Two-dimensional convolution and its two gradients.

mod correlate;
mod geometry;
mod weight_gradient;

use candle_core::Tensor;

pub(crate) use self::correlate::Shared;
use self::correlate::{Correlation, Packed, PixelRow};
use self::geometry::{Geometry, Padding, pad};
use crate::dense::{Dense, by_dtype, channels_last, dims4, expect_shape, four, lend, tensor};
use crate::error::OpError;
use crate::simd::Float;

const OP: &str = "conv2d";
/// Pixels of a row when output pixels need no neighbors and may be cut anywhere.
const POINTWISE_ROW: usize = 48;

/// Constants of a convolution, as in PyTorch's `conv2d`; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dSpec {
    /// Step between two output pixels, in input pixels.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Distance of two taps, in input pixels.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Conv2dSpec {
    /// This stride and padding, no dilation, one group.
    #[must_use]
    pub fn new(stride: usize, padding: usize) -> Self {
        Self { stride, padding, dilation: 1, groups: 1 }
    }
}

/// Convolves `x` `[N, C, H, W]` with `weight` `[C_out, C/groups, K, K]`, f32 or f64; gives
/// `[N, C_out, H_out, W_out]`, channels last in memory (PyTorch `conv2d` without bias).
///
/// # Errors
/// If the shapes do not fit or the numbers are neither f32 nor f64.
pub fn conv2d(x: &Tensor, weight: &Tensor, spec: Conv2dSpec) -> Result<Tensor, OpError> {
    let geometry = Geometry::new(OP, dims4(OP, "x", x)?, dims4(OP, "weight", weight)?, spec)?;
    by_dtype!(OP, x, forward(x, weight, geometry))
}

/// The gradient of [`conv2d`]'s input, whose shape is `x_dims`, from the gradient `dy`
/// `[N, C_out, H_out, W_out]` of its output; the first layer of an encoder does not need it.
///
/// # Errors
/// If the shapes do not fit or the numbers are neither f32 nor f64.
pub fn conv2d_input_gradient(
    x_dims: &[usize],
    weight: &Tensor,
    dy: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d_input_gradient";
    let g = Geometry::new(OP, four(OP, "x", x_dims)?, dims4(OP, "weight", weight)?, spec)?;
    expect_shape(OP, "dy", dy, &[g.n, g.co, g.ho, g.wo])?;
    by_dtype!(OP, dy, gradient_of_input(weight, dy, g))
}

/// The gradient of [`conv2d`]'s weight, whose shape is `weight_dims`, from its input `x` and the gradient
/// `dy` `[N, C_out, H_out, W_out]` of its output.
///
/// # Errors
/// If the shapes do not fit or the numbers are neither f32 nor f64.
pub fn conv2d_weight_gradient(
    x: &Tensor,
    weight_dims: &[usize],
    dy: &Tensor,
    spec: Conv2dSpec,
) -> Result<Tensor, OpError> {
    const OP: &str = "conv2d_weight_gradient";
    let g = Geometry::new(OP, dims4(OP, "x", x)?, four(OP, "weight", weight_dims)?, spec)?;
    expect_shape(OP, "dy", dy, &[g.n, g.co, g.ho, g.wo])?;
    by_dtype!(OP, x, gradient_of_weight(x, dy, g))
}

fn forward<T: Float>(x: &Tensor, weight: &Tensor, g: Geometry) -> Result<Tensor, OpError> {
    let (x, weight) = (Dense::channels_last(OP, x)?, Dense::rows(OP, weight)?);
    let mut y = vec![T::zero(); g.n * g.ho * g.wo * g.co];
    lend!(OP, T, [x, weight] => forward_into(x, weight, g, &mut y));
    channels_last(OP, y, [g.n, g.co, g.ho, g.wo])
}

fn forward_into<T: Float>(x: &[T], weight: &[T], g: Geometry, y: &mut [T]) {
    let Conv2dSpec { stride, padding, dilation, groups } = g.spec;
    let (taps, cg, og) = (g.k * g.k, g.c_group(), g.co_group());
    let x = pad(x, [g.h, g.w, g.c], Padding::around(padding));
    for group in 0..groups {
        let packed = Packed::new(taps * cg, og, |r, column| {
            // Weights are [C_out, C/groups, taps]; the reduction runs over taps, then channels.
            weight[((group * og + column) * cg + r % cg) * taps + r / cg]
        });
        let (spans, span_len) = if g.rows_are_contiguous() {
            ((0..g.k).map(|ky| ky * x.w * g.c).collect::<Vec<_>>(), g.k * g.c)
        } else {
            let tap = |t: usize| (t / g.k * x.w + t % g.k) * dilation * g.c;
            ((0..taps).map(tap).collect(), cg)
        };
        let correlation = Correlation {
            a: &x.numbers,
            a_pixel: stride * g.c,
            spans: &spans,
            span_len,
            weights: &packed,
            out_pixel: g.co,
        };
        if g.is_pointwise() {
            let pixels = g.n * g.h * g.w;
            let row = |i: usize| PixelRow {
                a: i * POINTWISE_ROW * g.c + group * cg,
                out: i * POINTWISE_ROW * g.co + group * og,
                pixels: POINTWISE_ROW.min(pixels - i * POINTWISE_ROW),
            };
            correlation.run(pixels.div_ceil(POINTWISE_ROW), row, y);
        } else {
            let row = |i: usize| PixelRow {
                a: (i / g.ho * x.h + i % g.ho * stride) * x.w * g.c + group * cg,
                out: i * g.wo * g.co + group * og,
                pixels: g.wo,
            };
            correlation.run(g.n * g.ho, row, y);
        }
    }
}

fn gradient_of_input<T: Float>(
    weight: &Tensor,
    dy: &Tensor,
    g: Geometry,
) -> Result<Tensor, OpError> {
    let (dy, weight) = (Dense::channels_last(OP, dy)?, Dense::rows(OP, weight)?);
    let mut dx = vec![T::zero(); g.n * g.h * g.w * g.c];
    lend!(OP, T, [dy, weight] => input_gradient_into(dy, weight, g, &mut dx));
    channels_last(OP, dx, [g.n, g.c, g.h, g.w])
}

/// Input pixel `s·j + phase` receives output pixel `j + (phase + padding − d·tap)/s` through each tap
/// for which the division has no remainder. So the pixels of each phase, in y and in x, are an ordinary
/// correlation of the padded `dy` with the taps of that phase.
fn input_gradient_into<T: Float>(dy: &[T], weight: &[T], g: Geometry, dx: &mut [T]) {
    let Conv2dSpec { stride, padding, dilation, groups } = g.spec;
    let (cg, og) = (g.c_group(), g.co_group());
    // `before` zeros make the smallest index 0, `after` zeros reach the largest one.
    let before = (dilation * (g.k - 1)).saturating_sub(padding).div_ceil(stride);
    let after = |size: usize, out: usize| ((size - 1 + padding) / stride + 1).saturating_sub(out);
    let by = Padding {
        top: before,
        bottom: after(g.h, g.ho),
        left: before,
        right: after(g.w, g.wo),
        channels: 0,
    };
    let dy = pad(dy, [g.ho, g.wo, g.co], by);
    for (group, phase_y, phase_x) in phases(groups, stride) {
        if phase_y >= g.h || phase_x >= g.w {
            continue;
        }
        let (taps_y, taps_x) = (g.taps_of_phase(phase_y, before), g.taps_of_phase(phase_x, before));
        let mut taps = Vec::new();
        let mut spans = Vec::new();
        for (ky, offset_y) in &taps_y {
            for (kx, offset_x) in &taps_x {
                taps.push(ky * g.k + kx);
                spans.push((offset_y * dy.w + offset_x) * g.co);
            }
        }
        let packed = Packed::new(taps.len() * og, cg, |r, column| {
            weight[((group * og + r % og) * cg + column) * g.k * g.k + taps[r / og]]
        });
        let correlation = Correlation {
            a: &dy.numbers,
            a_pixel: g.co,
            spans: &spans,
            span_len: og,
            weights: &packed,
            out_pixel: stride * g.c,
        };
        let rows_of_image = (g.h - phase_y).div_ceil(stride);
        let row = |i: usize| {
            let (image, j) = (i / rows_of_image, i % rows_of_image);
            PixelRow {
                a: (image * dy.h + j) * dy.w * g.co + group * og,
                out: ((image * g.h + phase_y + j * stride) * g.w + phase_x) * g.c + group * cg,
                pixels: (g.w - phase_x).div_ceil(stride),
            }
        };
        correlation.run(g.n * rows_of_image, row, dx);
    }
}

fn phases(groups: usize, stride: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..groups).flat_map(move |group| {
        (0..stride).flat_map(move |y| (0..stride).map(move |x| (group, y, x)))
    })
}

impl Geometry {
    /// The taps that reach a phase, each with its offset in the gradient padded by `before`.
    fn taps_of_phase(&self, phase: usize, before: usize) -> Vec<(usize, usize)> {
        let Conv2dSpec { stride, padding, dilation, .. } = self.spec;
        (0..self.k)
            .filter_map(|tap| {
                let shifted = phase + padding + before * stride;
                let distance = shifted.checked_sub(dilation * tap)?;
                distance.is_multiple_of(stride).then_some((tap, distance / stride))
            })
            .collect()
    }
}

impl Padding {
    fn around(padding: usize) -> Self {
        Self { top: padding, bottom: padding, left: padding, right: padding, channels: 0 }
    }
}

fn gradient_of_weight<T: Float>(x: &Tensor, dy: &Tensor, g: Geometry) -> Result<Tensor, OpError> {
    let (x, dy) = (Dense::channels_last(OP, x)?, Dense::channels_last(OP, dy)?);
    let dw = lend!(OP, T, [x, dy] => weight_gradient::of(x, dy, g));
    tensor(OP, dw, (g.co, g.c_group(), g.k, g.k))
}
