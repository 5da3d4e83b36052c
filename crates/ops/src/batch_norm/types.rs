//! The inputs and results of a batch norm.

use candle_core::Tensor;

pub(super) const OP: &str = "batch_norm";

/// The parameters of a batch norm.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Scale γ `[C]`.
    pub gamma: &'a Tensor,
    /// Shift β `[C]`.
    pub beta: &'a Tensor,
    /// Added to the variance; 1e-5 in PyTorch.
    pub eps: f64,
    /// Contiguous parts of the batch with statistics of their own (virtual devices); divides N.
    pub groups: usize,
}

/// The operation fused after the normalization.
#[derive(Debug, Clone, Copy)]
pub enum After<'a> {
    /// Nothing.
    Nothing,
    /// ReLU.
    Relu,
    /// Addition of this tensor `[N, C, H, W]`, then ReLU.
    AddRelu(&'a Tensor),
}

/// Gradients of a batch norm.
#[derive(Debug)]
pub struct BatchNormGradients {
    /// Of the input `[N, C, H, W]`.
    pub x: Tensor,
    /// Of the tensor in [`After::AddRelu`] `[N, C, H, W]`.
    pub added: Option<Tensor>,
    /// Of γ `[C]`.
    pub gamma: Tensor,
    /// Of β `[C]`.
    pub beta: Tensor,
}

/// The running statistics of a batch norm.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// `[C]`.
    pub mean: &'a Tensor,
    /// `[C]`, unbiased.
    pub var: &'a Tensor,
    /// i64 `[]`.
    pub num_batches_tracked: &'a Tensor,
}
