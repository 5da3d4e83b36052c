//! Stochastic gradient descent with momentum and weight decay.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use moco_ops::{OpError, SgdUpdate};
use moco_params::{Gradients, ParamError, ParamStore};

/// Constants of the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Momentum of the gradient's running sum; 0.9 in the papers.
    pub sgd_momentum: f64,
    /// L2 penalty on every parameter, batch norm and biases included; 1e-4 in the papers.
    pub weight_decay: f64,
}

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
        /// What does not fit.
        source: OpError,
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

/// PyTorch's `torch.optim.SGD(momentum, weight_decay)` without dampening or Nesterov
/// (official `main_moco.py:291-296`). Its state is one buffer a parameter, kept by name.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    buffers: BTreeMap<String, Tensor>,
}

impl Sgd {
    /// An optimizer for these parameters, with zero buffers. Several stores are one network; their
    /// names must differ.
    ///
    /// # Errors
    /// If two parameters have one name or memory cannot be had.
    pub fn new(config: SgdConfig, stores: &[&ParamStore]) -> Result<Self, OptimError> {
        let mut buffers = BTreeMap::new();
        for (name, parameter) in stores.iter().flat_map(|store| store.parameters()) {
            let buffer = parameter
                .zeros_like()
                .map_err(|source| OptimError::Buffer { name: name.to_owned(), source })?;
            if buffers.insert(name.to_owned(), buffer).is_some() {
                return Err(ParamError::Duplicate { name: name.to_owned() }.into());
            }
        }
        Ok(Self { config, buffers })
    }

    /// Updates every parameter in place by the [`learning_rate`] `lr`.
    ///
    /// # Errors
    /// If a gradient is missing or has another shape; then nothing was updated.
    pub fn step(
        &mut self,
        stores: &[&ParamStore],
        gradients: &Gradients,
        lr: &Tensor,
    ) -> Result<(), OptimError> {
        let SgdConfig { sgd_momentum, weight_decay } = self.config;
        let mut updates = Vec::new();
        for (name, parameter) in stores.iter().flat_map(|store| store.parameters()) {
            let missing = || OptimError::NoGradient { name: name.to_owned() };
            let gradient = gradients.get(name).ok_or_else(missing)?;
            let buffer = self.buffers.get(name).ok_or_else(missing)?;
            let update = SgdUpdate::new(parameter, gradient, buffer);
            updates
                .push(update.map_err(|source| OptimError::Op { name: name.to_owned(), source })?);
        }
        moco_ops::sgd_(&updates, lr, [sgd_momentum, weight_decay]).map_err(OptimError::Update)
    }

    /// The momentum buffers by parameter name.
    #[must_use]
    pub fn buffers(&self) -> &BTreeMap<String, Tensor> {
        &self.buffers
    }

    /// Replaces the buffers by copies of `value_of(name)`.
    ///
    /// # Errors
    /// If one is missing or does not fit.
    pub fn load<'a>(
        &mut self,
        value_of: impl Fn(&str) -> Option<&'a Tensor>,
    ) -> Result<(), OptimError> {
        let mut store = ParamStore::default();
        for (name, buffer) in &self.buffers {
            store.insert(name.as_str(), buffer.clone(), moco_params::Role::Buffer)?;
        }
        store.load(value_of)?;
        self.buffers =
            store.iter().map(|(name, tensor, _)| (name.to_owned(), tensor.clone())).collect();
        Ok(())
    }
}

/// A learning rate as an update takes it, `[1]`: of the parameters' type, where they are.
///
/// # Errors
/// If memory cannot be had.
pub fn learning_rate(lr: f64, dtype: DType, device: &Device) -> Result<Tensor, OptimError> {
    let host = Tensor::new(&[lr], &Device::Cpu).and_then(|lr| lr.to_dtype(dtype));
    let host = host.map_err(OptimError::LearningRate)?;
    moco_ops::upload(&host, device).map_err(OptimError::Update)
}

#[cfg(test)]
mod tests {
    use moco_params::Role;

    use super::*;

    fn vector(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn rate(lr: f64) -> Tensor {
        learning_rate(lr, DType::F64, &Device::Cpu).unwrap()
    }

    fn store(values: &[f64]) -> ParamStore {
        let mut store = ParamStore::default();
        store.insert("w", vector(values), Role::Parameter).unwrap();
        store.insert("running_mean", vector(&[7.0]), Role::Buffer).unwrap();
        store
    }

    /// Three updates of the recurrence in PyTorch's documentation of SGD, by hand.
    #[test]
    fn the_update_is_pytorchs() {
        let config = SgdConfig { sgd_momentum: 0.9, weight_decay: 0.1 };
        let store = store(&[1.0, -2.0]);
        let mut sgd = Sgd::new(config, &[&store]).unwrap();
        let (mut expected, mut buffer) = ([1.0, -2.0], [0.0, 0.0]);
        for step in 0..3 {
            let gradient = [0.5 + f64::from(step), -1.0];
            let lr = 0.1 / f64::from(step + 1);
            let gradients = Gradients::from([("w".to_owned(), vector(&gradient))]);
            sgd.step(&[&store], &gradients, &rate(lr)).unwrap();
            for i in 0..2 {
                buffer[i] = 0.9 * buffer[i] + gradient[i] + 0.1 * expected[i];
                expected[i] -= lr * buffer[i];
            }
        }
        let got: Vec<f64> = store.get("w").unwrap().to_vec1().unwrap();
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{got:?}");
        let running: Vec<f64> = store.get("running_mean").unwrap().to_vec1().unwrap();
        assert_eq!(running, [7.0], "a buffer is never touched");
    }

    #[test]
    fn state_travels_by_name() {
        let config = SgdConfig { sgd_momentum: 0.5, weight_decay: 0.0 };
        let run = |interrupted: bool| -> Vec<f64> {
            let store = store(&[1.0]);
            let gradients = Gradients::from([("w".to_owned(), vector(&[1.0]))]);
            let mut sgd = Sgd::new(config, &[&store]).unwrap();
            sgd.step(&[&store], &gradients, &rate(0.1)).unwrap();
            if interrupted {
                let saved = sgd.buffers().clone();
                sgd = Sgd::new(config, &[&store]).unwrap();
                sgd.load(|name| saved.get(name)).unwrap();
            }
            sgd.step(&[&store], &gradients, &rate(0.1)).unwrap();
            store.get("w").unwrap().to_vec1().unwrap()
        };
        assert_eq!(run(true), run(false));
        let mut sgd = Sgd::new(config, &[&store(&[1.0])]).unwrap();
        assert_eq!(sgd.load(|_| None).unwrap_err().to_string(), "no tensor named `w`");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let store = store(&[1.0, 2.0]);
        let mut sgd =
            Sgd::new(SgdConfig { sgd_momentum: 0.9, weight_decay: 0.0 }, &[&store]).unwrap();
        let message = sgd.step(&[&store], &Gradients::new(), &rate(0.1)).unwrap_err().to_string();
        assert_eq!(message, "parameter `w` has no gradient");
        let wrong = Gradients::from([("w".to_owned(), vector(&[1.0]))]);
        let message = sgd.step(&[&store], &wrong, &rate(0.1)).unwrap_err().to_string();
        assert_eq!(message, "parameter `w`: sgd: `gradient` has shape [1], expected [2]");
        // A second name for one parameter's memory would be updated twice.
        let mut tied = ParamStore::default();
        tied.insert("v", store.get("w").unwrap().clone(), Role::Parameter).unwrap();
        let stores = [&store, &tied];
        let config = SgdConfig { sgd_momentum: 0.9, weight_decay: 0.0 };
        let gradients = ["v", "w"].map(|name| (name.to_owned(), vector(&[1.0, 1.0])));
        let mut sgd = Sgd::new(config, &stores).unwrap();
        let message = sgd.step(&stores, &gradients.into(), &rate(0.1)).unwrap_err().to_string();
        let expected = "sgd: `parameter` shares its memory with another tensor of the update";
        assert_eq!(message, expected);
        let unchanged: Vec<f64> = store.get("w").unwrap().to_vec1().unwrap();
        assert_eq!(unchanged, [1.0, 2.0]);
    }
}
