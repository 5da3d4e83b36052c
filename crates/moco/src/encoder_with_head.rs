//! An encoder with its projection head: f_q or f_k.

use candle_core::{DType, Device, Tensor};
use moco_encoders::{Encoder, GradientSink, Head, HeadKind, HeadSaved, Mode, Saved};
use moco_ops::{EmaUpdate, OpError, add, ema_, l2_normalize, l2_normalize_backward};
use moco_params::{Gradients, ParamStore};
use moco_rng::Seed;

use crate::error::MocoError;

/// f_q or f_k: backbone, projection, L2 normalization.
pub struct EncoderWithHead {
    encoder: Box<dyn Encoder>,
    head: Head,
}

impl std::fmt::Debug for EncoderWithHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderWithHead").field("head", &self.head).finish_non_exhaustive()
    }
}

/// The values that [`EncoderWithHead::forward`] saves for the backward pass.
#[derive(Debug)]
pub struct SavedForward {
    encoder: Saved,
    head: HeadSaved,
    projected: Tensor,
}

impl EncoderWithHead {
    /// An encoder with a new head of `dim` outputs, of the encoder's type and on its device.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn new(
        encoder: Box<dyn Encoder>,
        head: HeadKind,
        dim: usize,
        seed: Seed,
    ) -> Result<Self, MocoError> {
        let (dtype, device) = dtype_and_device(encoder.as_ref());
        let mut head = Head::new(head, encoder.feature_dim(), dim, seed, dtype)?;
        head.params_mut().to_device(device)?;
        Ok(Self { encoder, head })
    }

    /// A copy with memory of its own; f_k starts as one of f_q.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn fork(&self) -> Result<Self, MocoError> {
        Ok(Self { encoder: self.encoder.fork()?, head: self.head.fork()? })
    }

    /// Type of the parameters.
    pub(crate) fn dtype(&self) -> DType {
        dtype_and_device(self.encoder()).0
    }

    /// The device that holds the parameters.
    pub(crate) fn device(&self) -> &Device {
        dtype_and_device(self.encoder()).1
    }

    /// The backbone.
    #[must_use]
    pub fn encoder(&self) -> &dyn Encoder {
        self.encoder.as_ref()
    }

    /// The backbone, to compute features.
    pub fn encoder_mut(&mut self) -> &mut dyn Encoder {
        self.encoder.as_mut()
    }

    /// Backbone's and head's tensors.
    #[must_use]
    pub fn stores(&self) -> [&ParamStore; 2] {
        [self.encoder.params(), self.head.params()]
    }

    pub(crate) fn stores_mut(&mut self) -> [&mut ParamStore; 2] {
        [self.encoder.params_mut(), self.head.params_mut()]
    }

    /// L2-normalized features `[N, dim]` of images `[N, 3, H, W]` in training mode, with what the
    /// backward pass needs.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn forward(&mut self, images: &Tensor) -> Result<(Tensor, SavedForward), MocoError> {
        let (features, encoder) = self.encoder.forward(images)?;
        let (projected, head) = self.head.forward(&features)?;
        let normalized = l2_normalize(&projected)?;
        Ok((normalized, SavedForward { encoder, head, projected }))
    }

    /// The same features in either mode; keeps nothing for a backward pass.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn encode(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, MocoError> {
        let features = self.encoder.features(images, mode)?;
        Ok(l2_normalize(&self.head.forward(&features)?.0)?)
    }

    /// Hands each parameter's gradient to `sink`, from the gradient `[N, dim]` of the normalized features: first
    /// the head's, then those of the backbone, as [`Encoder::backward`] does.
    ///
    /// # Errors
    /// If the gradient does not fit, or the sink fails.
    pub fn backward(
        &self,
        saved: SavedForward,
        dq: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<(), MocoError> {
        let SavedForward { encoder, head, projected } = saved;
        let dz = l2_normalize_backward(&projected, dq)?;
        let df = self.head.backward(&head, &dz, sink)?;
        Ok(self.encoder.backward(encoder, &df, sink)?)
    }

    /// Eq. (2), θ_k ← m·θ_k + (1 − m)·θ_q, for every parameter; batch norm's buffers are not touched.
    ///
    /// # Errors
    /// If `query` has other parameters.
    pub fn momentum_update(&mut self, query: &Self, key_momentum: f64) -> Result<(), MocoError> {
        let mut updates = Vec::new();
        for (key, query) in self.stores().into_iter().zip(query.stores()) {
            for ((_, key), (_, query)) in key.parameters().zip(query.parameters()) {
                updates.push(EmaUpdate::new(key, query)?);
            }
        }
        Ok(ema_(&updates, key_momentum)?)
    }
}

/// Type and device of an encoder's parameters; f32 on the CPU if it has none.
fn dtype_and_device(encoder: &dyn Encoder) -> (DType, &Device) {
    encoder.params().dtype_and_device().unwrap_or((DType::F32, &Device::Cpu))
}

/// Adds each gradient of a direction of the loss, as it comes, to those of the directions before: no second set of
/// gradients is ever in memory.
pub(crate) fn add_to(
    total: &mut Gradients,
) -> impl FnMut(String, Tensor) -> Result<(), OpError> + use<'_> {
    move |name, gradient| {
        let sum = match total.get(&name) {
            Some(so_far) => add(so_far, &gradient)?,
            None => gradient,
        };
        total.insert(name, sum);
        Ok(())
    }
}
