//! Two-dimensional convolution and its two gradients.

mod correlate;
mod gather;
mod geometry;
mod packed;
mod reorder;
mod weight_gradient;

use candle_core::Tensor;

use self::correlate::Correlation;
use self::gather::Plane;
use self::geometry::Region;
use self::packed::{Packed, WeightView};
use crate::dense::{
    Dense, Unwritten, by_dtype, channels_last, dims4, expect_shape, four, lend, tensor,
};
use crate::error::OpError;
use crate::gpu::on_gpu;
use crate::simd::Float;

pub(crate) use self::geometry::Geometry;

const OP: &str = "conv2d";

/// Constants of a convolution, as in PyTorch's `conv2d`; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    on_gpu!(OP, x, convolution::forward, x, weight, geometry);
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
    on_gpu!(OP, dy, convolution::input_gradient, weight, dy, g);
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
    on_gpu!(OP, x, convolution::weight_gradient, x, dy, g);
    by_dtype!(OP, x, gradient_of_weight(x, dy, g))
}

/// Any of the three products in f32, for the emulator of a GPU; logical shapes `[N, C, H, W]` and
/// `[C_out, C/groups, K, K]`.
#[cfg(all(feature = "emulator", not(feature = "device-tests")))]
pub(crate) fn on_cpu(
    direction: crate::gpu::convolution::Direction,
    g: Geometry,
    a: &Tensor,
    b: &Tensor,
) -> Result<Tensor, OpError> {
    match direction {
        crate::gpu::convolution::Direction::Forward => forward::<f32>(a, b, g),
        crate::gpu::convolution::Direction::InputGradient => gradient_of_input::<f32>(a, b, g),
        crate::gpu::convolution::Direction::WeightGradient => gradient_of_weight::<f32>(a, b, g),
    }
}

fn forward<T: Float>(x: &Tensor, weight: &Tensor, g: Geometry) -> Result<Tensor, OpError> {
    let (x, weight) = (Dense::channels_last(OP, x)?, Dense::rows(OP, weight)?);
    let y = lend!(OP, T, [x, weight] => {
        let (taps, cg, og) = (g.k * g.k, g.c_group(), g.co_group());
        // Weights are [C_out, C/groups, taps]; a group has the output channels of its own.
        correlate(x, weight, &g.outputs(), g.output_plane(), g.input_plane(), |group| WeightView {
            start: group * og * cg * taps,
            taps,
            channels: cg,
            channel_stride: taps,
            columns: og,
            column_stride: cg * taps,
        })
    });
    channels_last(OP, y, [g.n, g.co, g.ho, g.wo])
}

fn gradient_of_input<T: Float>(
    weight: &Tensor,
    dy: &Tensor,
    g: Geometry,
) -> Result<Tensor, OpError> {
    let (dy, weight) = (Dense::channels_last(OP, dy)?, Dense::rows(OP, weight)?);
    let dx = lend!(OP, T, [dy, weight] => {
        let (taps, cg, og) = (g.k * g.k, g.c_group(), g.co_group());
        correlate(dy, weight, &g.inputs(), g.input_plane(), g.output_plane(), |group| WeightView {
            start: group * og * cg * taps,
            taps,
            channels: og,
            channel_stride: cg * taps,
            columns: cg,
            column_stride: taps,
        })
    });
    channels_last(OP, dx, [g.n, g.c, g.h, g.w])
}

/// All pixels of `own` as sums over what they meet in `from`, which has the pixels of `met`.
fn correlate<T: Float>(
    from: &[T],
    weight: &[T],
    regions: &[Region],
    own: Plane,
    met: Plane,
    view: impl Fn(usize) -> WeightView,
) -> Vec<T> {
    let n = from.len() / (met.h * met.w * met.c);
    let mut out = Unwritten::new(n * own.h * own.w * own.c);
    let shared = Shared(out.elements().as_mut_ptr().cast::<T>());
    let groups = own.c / view(0).columns;
    for group in 0..groups {
        let view = view(group);
        let weights = Packed::new(weight, view);
        let correlation = Correlation {
            n,
            from,
            met: met.of_group(group * view.channels),
            own: own.of_group(group * view.columns),
            channels: view.channels,
            weights: &weights,
        };
        correlation.run(regions, shared);
    }
    // SAFETY: the regions hold all pixels, the groups all channels.
    unsafe { out.written() }
}

impl Geometry {
    fn input_plane(&self) -> Plane {
        Plane { h: self.h, w: self.w, c: self.c, first: 0 }
    }

    fn output_plane(&self) -> Plane {
        Plane { h: self.ho, w: self.wo, c: self.co, first: 0 }
    }
}

fn gradient_of_weight<T: Float>(x: &Tensor, dy: &Tensor, g: Geometry) -> Result<Tensor, OpError> {
    let (x, dy) = (Dense::channels_last(OP, x)?, Dense::channels_last(OP, dy)?);
    let dw = lend!(OP, T, [x, dy] => weight_gradient::of(x, dy, g));
    tensor(OP, dw, (g.co, g.c_group(), g.k, g.k))
}

/// A pointer that tasks share because each writes elements of its own.
#[derive(Debug, Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: users write disjoint elements only, as their comments say.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}
