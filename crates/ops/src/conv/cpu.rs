//! The three products on the CPU, f32 and f64.

use candle_core::Tensor;

use super::correlate::Correlation;
use super::gather::Plane;
use super::geometry::{Geometry, Region};
use super::packed::{Packed, WeightView};
use super::shared::Shared;
use super::weight_gradient;
use crate::dense::{Dense, Unwritten, channels_last, lend, tensor};
use crate::error::OpError;
#[cfg(all(feature = "emulator", not(feature = "device-tests")))]
use crate::gpu::convolution::Direction;
use crate::simd::Float;

const OP: &str = "conv2d";

/// See [`crate::conv2d`].
pub(super) fn forward<T: Float>(
    x: &Tensor,
    weight: &Tensor,
    g: Geometry,
) -> Result<Tensor, OpError> {
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

/// See [`crate::conv2d_input_gradient`].
pub(super) fn gradient_of_input<T: Float>(
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

/// See [`crate::conv2d_weight_gradient`].
pub(super) fn gradient_of_weight<T: Float>(
    x: &Tensor,
    dy: &Tensor,
    g: Geometry,
) -> Result<Tensor, OpError> {
    let (x, dy) = (Dense::channels_last(OP, x)?, Dense::channels_last(OP, dy)?);
    let dw = lend!(OP, T, [x, dy] => weight_gradient::of(x, dy, g));
    tensor(OP, dw, (g.co, g.c_group(), g.k, g.k))
}

/// Any of the three products in f32, for the emulator of a GPU; logical shapes `[N, C, H, W]` and
/// `[C_out, C/groups, K, K]`.
#[cfg(all(feature = "emulator", not(feature = "device-tests")))]
pub(crate) fn product(
    direction: Direction,
    g: Geometry,
    a: &Tensor,
    b: &Tensor,
) -> Result<Tensor, OpError> {
    match direction {
        Direction::Forward => forward::<f32>(a, b, g),
        Direction::InputGradient => gradient_of_input::<f32>(a, b, g),
        Direction::WeightGradient => gradient_of_weight::<f32>(a, b, g),
    }
}
