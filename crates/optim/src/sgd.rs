//! Stochastic gradient descent with momentum and weight decay.

/// Constants of the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Momentum of the gradient's running sum; 0.9 in the papers.
    pub sgd_momentum: f64,
    /// L2 penalty on every parameter, batch norm and biases included; 1e-4 in the papers.
    pub weight_decay: f64,
}
