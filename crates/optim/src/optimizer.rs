//! The trait [`Optimizer`], and what all optimizers share.

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::{DType, Device, Tensor};
use moco_ops::SgdUpdate;
use moco_params::{Gradients, ParamError, ParamStore, Role};

use crate::error::OptimError;

/// Changes parameters by their gradients. Its state is one tensor a parameter, of the parameter's shape, type
/// and device, by the parameter's name.
pub trait Optimizer: Debug + Send {
    /// What precedes the names of its tensors in a checkpoint: [`OptimizerConfig::name`](crate::OptimizerConfig::name).
    fn name(&self) -> &'static str;

    /// Updates every parameter in place by the [`learning_rate`] `lr`. Buffers are not touched.
    ///
    /// # Errors
    /// If a gradient is missing or has another shape; then nothing was updated.
    fn step(
        &mut self,
        stores: &[&ParamStore],
        gradients: &Gradients,
        lr: &Tensor,
    ) -> Result<(), OptimError>;

    /// The state, by parameter name.
    fn state(&self) -> &BTreeMap<String, Tensor>;

    /// Replaces the state by copies of `value_of(name)`.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    fn load<'a>(&mut self, value_of: &dyn Fn(&str) -> Option<&'a Tensor>)
    -> Result<(), OptimError>;
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

/// A tensor for each parameter, by its name.
#[derive(Debug)]
pub(crate) struct Momenta(pub(crate) BTreeMap<String, Tensor>);

/// A parameter with its gradient and its momentum.
pub(crate) struct Slot<'a> {
    name: &'a str,
    pub(crate) parameter: &'a Tensor,
    pub(crate) gradient: &'a Tensor,
    momentum: &'a Tensor,
}

impl<'a> Slot<'a> {
    /// The update by `gradient`, which may be another one than the parameter's own.
    pub(crate) fn update(&self, gradient: &Tensor) -> Result<SgdUpdate<'a>, OptimError> {
        SgdUpdate::new(self.parameter, gradient, self.momentum)
            .map_err(|source| OptimError::Op { name: self.name.to_owned(), source })
    }

    /// An error of candle at this parameter.
    pub(crate) fn candle(&self, source: candle_core::Error) -> OptimError {
        OptimError::Candle { name: self.name.to_owned(), source }
    }
}

impl Momenta {
    /// Every parameter with its gradient and its momentum.
    pub(crate) fn slots<'a>(
        &'a self,
        stores: &[&'a ParamStore],
        gradients: &'a Gradients,
    ) -> Result<Vec<Slot<'a>>, OptimError> {
        let parameters = stores.iter().flat_map(|store| store.parameters());
        let slot = |(name, parameter): (&'a str, &'a Tensor)| {
            let missing = || OptimError::NoGradient { name: name.to_owned() };
            let gradient = gradients.get(name).ok_or_else(missing)?;
            let momentum = self.0.get(name).ok_or_else(missing)?;
            Ok(Slot { name, parameter, gradient, momentum })
        };
        parameters.map(slot).collect()
    }

    pub(crate) fn zeros(stores: &[&ParamStore]) -> Result<Self, OptimError> {
        let mut buffers = BTreeMap::new();
        for (name, parameter) in stores.iter().flat_map(|store| store.parameters()) {
            let buffer = parameter
                .zeros_like()
                .map_err(|source| OptimError::Buffer { name: name.to_owned(), source })?;
            if buffers.insert(name.to_owned(), buffer).is_some() {
                return Err(ParamError::Duplicate { name: name.to_owned() }.into());
            }
        }
        Ok(Self(buffers))
    }

    pub(crate) fn load<'a>(
        &mut self,
        value_of: &dyn Fn(&str) -> Option<&'a Tensor>,
    ) -> Result<(), OptimError> {
        let mut store = ParamStore::default();
        for (name, buffer) in &self.0 {
            store.insert(name.as_str(), buffer.clone(), Role::Buffer)?;
        }
        store.load(value_of)?;
        self.0 = store.iter().map(|(name, tensor, _)| (name.to_owned(), tensor.clone())).collect();
        Ok(())
    }
}
