//! The projection from features to the space where queries and keys are compared.

use candle_core::{DType, Tensor};
use moco_ops::{linear, linear_backward, relu, relu_backward};
use moco_params::ParamStore;
use moco_rng::Seed;

use crate::config::HeadKind;
use crate::encoder::{EncoderError, GradientSink, InLayer, hand_out};
use crate::init::{HEAD_STREAMS, Initializer};

/// A projection head with the official names: `fc.*` (v1), `fc.0.*` and `fc.2.*` (v2)
/// (official `builder.py:31-41`).
#[derive(Debug)]
pub struct Head {
    kind: HeadKind,
    params: ParamStore,
}

/// The values saved for a head's backward pass: its input, and the hidden layer after ReLU (v2).
#[derive(Debug)]
pub struct HeadSaved {
    x: Tensor,
    hidden: Option<Tensor>,
}

impl Head {
    /// A head from `feature_dim` to `dim` with PyTorch's initial values.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn new(
        kind: HeadKind,
        feature_dim: usize,
        dim: usize,
        seed: Seed,
        dtype: DType,
    ) -> Result<Self, EncoderError> {
        let mut init = Initializer::new(seed, dtype, HEAD_STREAMS);
        match kind {
            HeadKind::Fc => init.linear("fc", dim, feature_dim)?,
            HeadKind::Mlp => {
                init.linear("fc.0", feature_dim, feature_dim)?;
                init.linear("fc.2", dim, feature_dim)?;
            }
        }
        Ok(Self { kind, params: init.store })
    }

    /// Its parameters.
    #[must_use]
    pub fn params(&self) -> &ParamStore {
        &self.params
    }

    /// Its parameters, to load values into.
    pub fn params_mut(&mut self) -> &mut ParamStore {
        &mut self.params
    }

    /// The same head with the same values in memory of its own.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn fork(&self) -> Result<Self, EncoderError> {
        Ok(Self { kind: self.kind, params: self.params.deep_copy()? })
    }

    fn layer(&self, name: &str, x: &Tensor) -> Result<Tensor, EncoderError> {
        let weight = self.params.get(&format!("{name}.weight"))?;
        let bias = self.params.get(&format!("{name}.bias"))?;
        linear(x, weight, bias).in_layer(name)
    }

    /// `[N, feature_dim]` → `[N, dim]`, not yet normalized.
    ///
    /// # Errors
    /// If the features do not fit.
    pub fn forward(&self, features: &Tensor) -> Result<(Tensor, HeadSaved), EncoderError> {
        let x = features.clone();
        match self.kind {
            HeadKind::Fc => Ok((self.layer("fc", features)?, HeadSaved { x, hidden: None })),
            HeadKind::Mlp => {
                let hidden = relu(&self.layer("fc.0", features)?).in_layer("fc.1")?;
                let out = self.layer("fc.2", &hidden)?;
                Ok((out, HeadSaved { x, hidden: Some(hidden) }))
            }
        }
    }

    /// Hands out the parameters' gradients and gives the features' from the gradient `[N, dim]` of the output.
    ///
    /// # Errors
    /// If the gradient does not fit.
    pub fn backward(
        &self,
        saved: &HeadSaved,
        dy: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor, EncoderError> {
        match &saved.hidden {
            None => self.layer_backward("fc", &saved.x, dy, sink),
            Some(hidden) => {
                let dy = self.layer_backward("fc.2", hidden, dy, sink)?;
                let dy = relu_backward(hidden, &dy).in_layer("fc.1")?;
                self.layer_backward("fc.0", &saved.x, &dy, sink)
            }
        }
    }

    fn layer_backward(
        &self,
        name: &str,
        x: &Tensor,
        dy: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor, EncoderError> {
        let weight = self.params.get(&format!("{name}.weight"))?;
        let of_layer = linear_backward(x, weight, dy).in_layer(name)?;
        hand_out(sink, name, "weight", of_layer.weight)?;
        hand_out(sink, name, "bias", of_layer.bias)?;
        Ok(of_layer.x)
    }
}
