//! SGD as PyTorch defines it, and learning-rate schedules.
#![forbid(unsafe_code)]

mod schedule;
mod sgd;

pub use schedule::{Progress, Schedule};
pub use sgd::{OptimError, Sgd, SgdConfig, learning_rate};
