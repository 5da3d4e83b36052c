//! Optimizers and learning-rate schedules: SGD as PyTorch defines it, LARS as SimCLR does.
//!
//! [`OptimizerConfig`] describes an optimizer and builds it as a [`Optimizer`]; [`Schedule`] gives the
//! learning rate of a step.
#![forbid(unsafe_code)]

mod config;
mod error;
mod lars;
mod optimizer;
mod schedule;
mod sgd;

pub use config::OptimizerConfig;
pub use error::OptimError;
pub use lars::{Lars, LarsConfig};
pub use optimizer::{Optimizer, learning_rate};
pub use schedule::{Progress, Schedule};
pub use sgd::{Sgd, SgdConfig};
