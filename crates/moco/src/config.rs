//! The constants of the method.

use candle_core::DType;

/// Momentum Contrast's own settings (MoCo v1 §3; v2 Table 1).
#[derive(Debug, Clone, PartialEq)]
pub struct MocoConfig {
    /// The source of the negatives.
    pub mechanism: MechanismKind,
    /// K, the number of negatives; 65536 on ImageNet.
    pub queue_size: usize,
    /// m of Eq. (2); 0.999.
    pub key_momentum: f64,
    /// τ of Eq. (1); 0.07 in v1, 0.2 in v2.
    pub temperature: f64,
    /// Width of the features that are compared; 128.
    pub dim: usize,
    /// Whether each view serves as query and as key; the loss is the sum of both directions.
    pub symmetric: bool,
    /// Whether the key images are permuted before the key encoder (Shuffling BN, v1 §3.3).
    pub shuffle_bn: bool,
    /// How the queue stores keys.
    pub queue_precision: QueuePrecision,
}

impl MocoConfig {
    /// Negatives of a query: K.
    #[must_use]
    pub fn n_negatives(&self, batch_size: usize) -> usize {
        match self.mechanism {
            MechanismKind::Queue => self.queue_size,
            MechanismKind::EndToEnd => batch_size.saturating_sub(1),
        }
    }

    /// Keys that are kept from step to step: K of a queue.
    pub(crate) fn n_kept_keys(&self) -> usize {
        match self.mechanism {
            MechanismKind::Queue => self.queue_size,
            MechanismKind::EndToEnd => 0,
        }
    }

    /// Directions of the loss: two if it is symmetric.
    #[must_use]
    pub fn n_directions(&self) -> usize {
        if self.symmetric { 2 } else { 1 }
    }
}

/// A mechanism of contrastive learning (v1 Figure 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MechanismKind {
    /// MoCo: the negatives are the keys in the queue, which a momentum encoder made.
    Queue,
    /// The negatives are the other keys of the batch, and the gradient reaches the key encoder too.
    EndToEnd,
}

impl MechanismKind {
    /// Each mechanism with its name in configs.
    pub const NAMES: [(&'static str, Self); 2] =
        [("queue", Self::Queue), ("end_to_end", Self::EndToEnd)];

    /// The mechanism of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find_map(|(of, kind)| (*of == name).then_some(*kind))
    }
}

/// How the queue stores keys; all that is computed with them is f32 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePrecision {
    /// As the parameters are, f32 in training.
    AsParameters,
    /// In half the memory of f32, each number rounded to 8 bits; on a GPU only.
    Bf16,
}

impl QueuePrecision {
    /// The type of the queue of a model whose parameters have this one.
    pub(crate) fn dtype(self, parameters: DType) -> DType {
        match self {
            Self::AsParameters => parameters,
            Self::Bf16 => DType::BF16,
        }
    }
}
