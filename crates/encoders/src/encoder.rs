//! The trait [`Encoder`] and its errors.

use std::any::Any;

use candle_core::{DType, Tensor};
use moco_ops::OpError;
use moco_params::{Gradients, ParamError, ParamStore};

/// How batch norm behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; running statistics are updated.
    Train,
    /// Running statistics.
    Eval,
}

/// Activations that a forward pass keeps for its backward pass; only the encoder that made them can
/// read them.
pub struct Saved(Box<dyn Any + Send>);

impl Saved {
    /// Wraps an encoder's activations.
    pub fn new(activations: impl Any + Send) -> Self {
        Self(Box::new(activations))
    }

    /// Unwraps them.
    ///
    /// # Errors
    /// If another kind of encoder made them.
    pub fn take<T: Any>(self) -> Result<T, EncoderError> {
        match self.0.downcast() {
            Ok(activations) => Ok(*activations),
            Err(_) => Err(EncoderError::ForeignActivations),
        }
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Saved")
    }
}

/// An encoder failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// An operation failed.
    #[error("layer `{layer}`: {source}")]
    Op {
        /// The layer, by the name of its parameters.
        layer: String,
        /// The error of the operation.
        source: OpError,
    },
    /// A parameter is missing or does not fit.
    #[error(transparent)]
    Params(#[from] ParamError),
    /// candle failed.
    #[error("{what}: {source}")]
    Candle {
        /// The operation that failed.
        what: String,
        /// candle's error.
        source: candle_core::Error,
    },
    /// A backward pass was given another encoder's activations.
    #[error("the activations were saved by another kind of encoder")]
    ForeignActivations,
    /// A size that no network has.
    #[error("{key} must be {expected}, got {got}")]
    Size {
        /// The setting.
        key: &'static str,
        /// The allowed values.
        expected: String,
        /// Its value.
        got: usize,
    },
    /// Images of another type than the parameters.
    #[error(
        "images are {got:?}, the encoder's parameters {expected:?}. \
         hint: encoders of candle modules compute in one type; set run.precision = \"f32\""
    )]
    ImageType {
        /// Type of the parameters.
        expected: DType,
        /// Type of the images.
        got: DType,
    },
    /// A module's output is not what it was announced to be.
    #[error("features are {got:?}, expected {expected:?}. hint: `feature_dim` is the last of them")]
    FeatureShape {
        /// Images and `feature_dim`.
        expected: [usize; 2],
        /// The shape that the module returned.
        got: Vec<usize>,
    },
    /// Automatic differentiation found no way from the features to a parameter.
    #[error(
        "parameter `{name}` got no gradient: the features do not depend on it, or an operation on the way has \
         no derivative in candle (candle-nn's LayerNorm::forward, RmsNorm::forward and softmax_last_dim). \
         hint: write it from differentiable operations, such as candle_nn::ops::layer_norm_slow and softmax"
    )]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// Features of stages were asked of a network without any.
    #[error("this encoder has no stages; those of a ResNet have features of their own")]
    NoStages,
    /// A configuration that describes no network.
    #[error("{what} = {got} leaves no channels; use a larger one")]
    NoChannels {
        /// The setting.
        what: &'static str,
        /// Its value.
        got: f64,
    },
}

/// Takes each gradient as soon as a backward pass has it, by its parameter's name. An explicit pass hands them out
/// layer by layer from the last to the first, so that they can be collected, added to others, or sent to other
/// devices while the rest is computed.
pub type GradientSink<'a> = dyn FnMut(String, Tensor) -> Result<(), OpError> + 'a;

/// Maps images `[N, 3, H, W]` to features `[N, feature_dim]`. [`ResNet`](crate::ResNet) writes its
/// backward pass by hand, [`AutogradEncoder`](crate::AutogradEncoder) takes candle's.
pub trait Encoder: Send {
    /// Parameters and buffers.
    fn params(&self) -> &ParamStore;

    /// Parameters and buffers, to load values into.
    fn params_mut(&mut self) -> &mut ParamStore;

    /// Width of the features.
    fn feature_dim(&self) -> usize;

    /// Features in training mode, and what `backward` needs. Updates running statistics.
    ///
    /// # Errors
    /// If the images do not fit.
    fn forward(&mut self, images: &Tensor) -> Result<(Tensor, Saved), EncoderError>;

    /// Only the features; keeps no activations.
    ///
    /// # Errors
    /// If the images do not fit.
    fn features(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, EncoderError>;

    /// Activations `[N, C, H, W]` of each stage in evaluation mode, from the first to the last: for detectors and
    /// the like, which look at several scales. Changes nothing.
    ///
    /// # Errors
    /// [`EncoderError::NoStages`] unless it is a network with stages; if the images do not fit.
    fn stage_features(&mut self, _images: &Tensor) -> Result<Vec<Tensor>, EncoderError> {
        Err(EncoderError::NoStages)
    }

    /// Hands each parameter's gradient to `sink` once, from the gradient `[N, feature_dim]` of the features.
    /// Parameters must not have changed since `forward`.
    ///
    /// # Errors
    /// If the activations or the gradient do not fit, or the sink fails; then some gradients were handed out.
    fn backward(
        &self,
        saved: Saved,
        features: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<(), EncoderError>;

    /// All that [`Encoder::backward`] hands out.
    ///
    /// # Errors
    /// As `backward`.
    fn gradients(&self, saved: Saved, features: &Tensor) -> Result<Gradients, EncoderError> {
        let mut all = Gradients::new();
        self.backward(saved, features, &mut |name, gradient| {
            all.insert(name, gradient);
            Ok(())
        })?;
        Ok(all)
    }

    /// The same encoder with the same values in memory of its own.
    ///
    /// # Errors
    /// If memory cannot be had.
    fn fork(&self) -> Result<Box<dyn Encoder>, EncoderError>;
}

/// Names the layer in which an op failed.
pub(crate) trait InLayer<T> {
    fn in_layer(self, layer: &str) -> Result<T, EncoderError>;
}

impl<T> InLayer<T> for Result<T, OpError> {
    fn in_layer(self, layer: &str) -> Result<T, EncoderError> {
        self.map_err(|source| EncoderError::Op { layer: layer.to_owned(), source })
    }
}

/// Hands out the gradient of one parameter of a layer.
pub(crate) fn hand_out(
    sink: &mut GradientSink<'_>,
    layer: &str,
    parameter: &str,
    gradient: Tensor,
) -> Result<(), EncoderError> {
    sink(format!("{layer}.{parameter}"), gradient).in_layer(layer)
}
