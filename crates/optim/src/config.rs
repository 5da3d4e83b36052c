//! Which optimizers a config can name.

use moco_params::ParamStore;

use crate::error::OptimError;
use crate::lars::{Lars, LarsConfig};
use crate::optimizer::Optimizer;
use crate::sgd::{Sgd, SgdConfig};

/// Every optimizer that a config can name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerConfig {
    /// PyTorch's SGD, that of the papers.
    Sgd(SgdConfig),
    /// SimCLR's LARS, for large batches.
    Lars(LarsConfig),
}

impl From<SgdConfig> for OptimizerConfig {
    fn from(config: SgdConfig) -> Self {
        Self::Sgd(config)
    }
}

impl OptimizerConfig {
    /// Its name in configs, and before the names of its tensors in checkpoints.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd(_) => Sgd::NAME,
            Self::Lars(_) => Lars::NAME,
        }
    }

    /// An optimizer for these parameters, with a state of zeros. Several stores are one network; their names
    /// must differ.
    ///
    /// # Errors
    /// If two parameters have one name or memory cannot be had.
    pub fn build(&self, stores: &[&ParamStore]) -> Result<Box<dyn Optimizer>, OptimError> {
        Ok(match self {
            Self::Sgd(config) => Box::new(Sgd::new(*config, stores)?),
            Self::Lars(config) => Box::new(Lars::new(*config, stores)?),
        })
    }
}
