//! Stochastic gradient descent with momentum and weight decay.

use std::collections::BTreeMap;

use candle_core::Tensor;
use moco_ops::SgdUpdate;
use moco_params::{Gradients, ParamStore};

use crate::error::OptimError;
use crate::optimizer::{Momenta, Optimizer};

/// Constants of the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Momentum of the gradient's running sum; 0.9 in the papers.
    pub sgd_momentum: f64,
    /// L2 penalty on every parameter, batch norm and biases included; 1e-4 in the papers.
    pub weight_decay: f64,
}

/// PyTorch's `torch.optim.SGD(momentum, weight_decay)` without dampening or Nesterov
/// (official `main_moco.py:291-296`). Its state is one buffer a parameter, kept by name.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    momenta: Momenta,
}

impl Sgd {
    pub(crate) const NAME: &str = "sgd";

    /// An optimizer for these parameters, with zero buffers. Several stores are one network; their
    /// names must differ.
    ///
    /// # Errors
    /// If two parameters have one name or memory cannot be had.
    pub fn new(config: SgdConfig, stores: &[&ParamStore]) -> Result<Self, OptimError> {
        Ok(Self { config, momenta: Momenta::zeros(stores)? })
    }
}

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn step(
        &mut self,
        stores: &[&ParamStore],
        gradients: &Gradients,
        lr: &Tensor,
    ) -> Result<(), OptimError> {
        let SgdConfig { sgd_momentum, weight_decay } = self.config;
        let slots = self.momenta.slots(stores, gradients)?;
        let updates = slots.iter().map(|slot| slot.update(slot.gradient));
        let updates: Vec<SgdUpdate<'_>> = updates.collect::<Result<_, _>>()?;
        moco_ops::sgd_(&updates, lr, [sgd_momentum, weight_decay]).map_err(OptimError::Update)
    }

    fn state(&self) -> &BTreeMap<String, Tensor> {
        &self.momenta.0
    }

    fn load<'a>(
        &mut self,
        value_of: &dyn Fn(&str) -> Option<&'a Tensor>,
    ) -> Result<(), OptimError> {
        self.momenta.load(value_of)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use moco_params::Role;

    use super::*;
    use crate::optimizer::learning_rate;

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
                let saved = sgd.state().clone();
                sgd = Sgd::new(config, &[&store]).unwrap();
                sgd.load(&|name| saved.get(name)).unwrap();
            }
            sgd.step(&[&store], &gradients, &rate(0.1)).unwrap();
            store.get("w").unwrap().to_vec1().unwrap()
        };
        assert_eq!(run(true), run(false));
        let mut sgd = Sgd::new(config, &[&store(&[1.0])]).unwrap();
        assert_eq!(sgd.load(&|_| None).unwrap_err().to_string(), "no tensor named `w`");
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
