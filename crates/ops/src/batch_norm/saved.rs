//! The values that a forward pass saves.

use super::cpu::HostStatistics;
use super::gpu;

/// Statistics of a training-mode forward pass, for its backward pass and the running statistics.
#[derive(Debug, Clone)]
pub struct BatchNormSaved {
    pub(super) groups: usize,
    pub(super) statistics: Statistics,
}

/// Statistics where the activations are.
#[derive(Debug, Clone)]
pub(super) enum Statistics {
    Host(HostStatistics),
    Device(gpu::Statistics),
}

impl BatchNormSaved {
    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }
}
