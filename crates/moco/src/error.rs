//! Errors of the method.

use moco_encoders::EncoderError;
use moco_ops::OpError;
use moco_optim::OptimError;
use moco_params::ParamError;

/// A step or its state is not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MocoError {
    /// An encoder failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The loss or a normalization failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The optimizer failed.
    #[error(transparent)]
    Optim(#[from] OptimError),
    /// A tensor of the state is missing or does not fit.
    #[error(transparent)]
    Params(#[from] ParamError),
    /// candle failed.
    #[error("{what}: {source}")]
    Candle {
        /// The operation that failed.
        what: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
    /// More keys come in than the queue holds.
    #[error(
        "{n_keys} keys a step do not fit a queue of {queue_size}; use a queue_size of at least {n_keys}"
    )]
    QueueTooSmall {
        /// Keys of a step.
        n_keys: usize,
        /// K.
        queue_size: usize,
    },
    /// Something that has no GPU kernels.
    #[error("{what} runs on the CPU only; use --device cpu")]
    NeedsCpu {
        /// The feature that needs a CPU.
        what: &'static str,
    },
    /// The queue's pointer is outside the queue.
    #[error("queue_ptr is {got}, but the queue has columns 0 to {}", .queue_size - 1)]
    QueuePointer {
        /// K.
        queue_size: usize,
        /// The pointer of the state.
        got: usize,
    },
    /// A permutation names an image twice.
    #[error("index {index} occurs twice in the permutation")]
    IndexTwice {
        /// The image's place in the batch.
        index: u32,
    },
    /// A permutation names an image that the batch does not have.
    #[error("index {index} in a permutation of {n} images")]
    IndexOutOfRange {
        /// The image's place in the batch.
        index: u32,
        /// Images of the batch.
        n: usize,
    },
    /// The state has a tensor that the model lacks.
    #[error("the state holds `{name}`, which this model does not have")]
    UnknownTensor {
        /// The tensor.
        name: String,
    },
    /// An image has no finite pixels; the query encoder's weights and the queue were not updated.
    #[error(
        "view {view} of sample {sample_index} holds NaN or infinite pixels at step {global_step}; no weight \
         was updated. hint: look at this image and at what the augmentation makes of it"
    )]
    ImageNotFinite {
        /// 1 or 2.
        view: u32,
        /// The image's index in the data set.
        sample_index: u64,
        /// The step.
        global_step: u64,
    },
    /// The loss became NaN or infinite on a GPU and was noticed at the next synchronization.
    #[error(
        "the loss is {loss} at step {global_step}, and weights and queue were updated by it; only \
         what was saved before is of use. hint: lower optim.base_lr, or raise moco.temperature"
    )]
    NotFiniteOnDevice {
        /// The step.
        global_step: u64,
        /// The loss.
        loss: f64,
    },
    /// The loss is NaN or infinite; the query encoder's weights and the queue were not updated.
    #[error(
        "the loss is {loss} at step {global_step}; weights and queue were not updated. \
         hint: lower optim.base_lr, or raise moco.temperature"
    )]
    NotFinite {
        /// The step.
        global_step: u64,
        /// The loss.
        loss: f64,
    },
}

/// Says what candle was asked to do when it failed.
pub(crate) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, MocoError>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, what: &'static str) -> Result<T, MocoError> {
        self.map_err(|source| MocoError::Candle { what, source })
    }
}
