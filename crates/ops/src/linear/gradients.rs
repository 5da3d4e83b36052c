//! The gradients of a linear layer.

use candle_core::Tensor;

/// Gradients of a linear layer.
#[derive(Debug)]
pub struct LinearGradients {
    /// Of the input `[N, C_in]`.
    pub x: Tensor,
    /// Of the weight `[C_out, C_in]`.
    pub weight: Tensor,
    /// Of the bias `[C_out]`.
    pub bias: Tensor,
}
