//! How numbers are stored and multiplied on a GPU.

use candle_core::DType;

/// How activations are stored and how their products are computed. Parameters, statistics of batch norm,
/// logits, loss and optimizer are f32 in each of them, and sums of products are in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout: what a CPU does, and parity checks.
    F32,
    /// f32 that products round to TF32, with 10 bits of mantissa, for tensor cores.
    Tf32,
    /// bf16 activations.
    Bf16,
}

impl Precision {
    /// The type of activations.
    #[must_use]
    pub fn activations(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}
