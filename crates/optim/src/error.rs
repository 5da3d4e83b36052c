//! Errors of updates.

use moco_ops::OpError;
use moco_params::ParamError;

/// An update could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A parameter has no gradient.
    #[error("parameter `{name}` has no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// Tensors do not fit.
    #[error("parameter `{name}`: {source}")]
    Op {
        /// The parameter.
        name: String,
        /// The mismatch.
        source: OpError,
    },
    /// candle failed.
    #[error("scaled gradient of `{name}`: {source}")]
    Candle {
        /// The parameter.
        name: String,
        /// candle's error.
        source: candle_core::Error,
    },
    /// Parameters cannot be updated together.
    #[error(transparent)]
    Update(OpError),
    /// A momentum buffer could not be made.
    #[error("momentum buffer of `{name}`: {source}")]
    Buffer {
        /// The parameter.
        name: String,
        /// candle's error.
        source: candle_core::Error,
    },
    /// The learning rate could not be made a tensor.
    #[error("learning rate: {0}")]
    LearningRate(candle_core::Error),
    /// The state of another network.
    #[error(transparent)]
    State(#[from] ParamError),
}
