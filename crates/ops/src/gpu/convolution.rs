//! The description of a convolution for a GPU's library.

use candle_core::DType;

use crate::conv::Geometry;

/// A convolution over activations with channels last. Weights are `[C_out, K, K, C/groups]`, channels
/// last too, and stored as the activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Convolution {
    pub(crate) direction: Direction,
    pub(crate) geometry: Geometry,
    pub(crate) dtype: DType,
}

impl Convolution {
    /// Shape of the output, stored channels last.
    pub(crate) fn output_dims(&self) -> [usize; 4] {
        let g = &self.geometry;
        match self.direction {
            Direction::Forward => [g.n, g.ho, g.wo, g.co],
            Direction::InputGradient => [g.n, g.h, g.w, g.c],
            Direction::WeightGradient => [g.co, g.k, g.k, g.c_group()],
        }
    }
}

/// Which of the three products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// `a` = x, `b` = weight; gives y `[N, H_out, W_out, C_out]`.
    Forward,
    /// `a` = weight, `b` = dy; gives dx `[N, H, W, C]`.
    InputGradient,
    /// `a` = x, `b` = dy; gives dw `[C_out, K, K, C/groups]`.
    WeightGradient,
}
