//! Errors of evaluations.

use moco_ops::OpError;
use moco_optim::OptimError;
use moco_params::ParamError;

/// Features cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Numbers and labels do not fit.
    #[error("{rows} labels of {dim} numbers each need {} numbers, got {got}", rows * dim)]
    Size {
        /// Labels.
        rows: usize,
        /// Width of a feature.
        dim: usize,
        /// Numbers.
        got: usize,
    },
    /// Training and test features differ in width, or there are none.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// The quantity that differs.
        what: &'static str,
        /// The expected value.
        expected: usize,
        /// The value that was given.
        got: usize,
    },
    /// A label is not below the number of classes.
    #[error("label {label} of {n_classes} classes")]
    Label {
        /// The label.
        label: u32,
        /// Classes.
        n_classes: usize,
    },
    /// The classifier diverged.
    #[error(
        "the linear classifier's loss is {loss} in epoch {epoch} with learning rate {lr:?}; a lower one: \
         pretrain --resume RUN --set evaluate.linear_lr=…, or lincls RUN --lr …"
    )]
    Diverged {
        /// Epoch, from 0.
        epoch: u64,
        /// The loss.
        loss: f64,
        /// The learning rate at the start.
        lr: f64,
    },
    /// candle failed.
    #[error("{what}: {source}")]
    Candle {
        /// The operation that failed.
        what: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
    /// An op failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The optimizer failed.
    #[error(transparent)]
    Optim(#[from] OptimError),
    /// A parameter is missing.
    #[error(transparent)]
    Params(#[from] ParamError),
}

/// Says what candle was asked to do when it failed.
pub(crate) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, EvaluateError>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, what: &'static str) -> Result<T, EvaluateError> {
        self.map_err(|source| EvaluateError::Candle { what, source })
    }
}
