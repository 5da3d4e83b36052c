//! An encoder with its projection head: f_q or f_k.

use candle_core::Tensor;
use moco_encoders::{Encoder, Head, HeadSaved, Mode, Saved};
use moco_ops::{EmaUpdate, ema_, l2_normalize, l2_normalize_backward};
use moco_params::{Gradients, ParamStore};

use crate::error::MocoError;

/// f_q or f_k: backbone, projection, L2 normalization.
pub struct Branch {
    encoder: Box<dyn Encoder>,
    head: Head,
}

impl std::fmt::Debug for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Branch").field("head", &self.head).finish_non_exhaustive()
    }
}

/// What a branch's backward pass needs.
#[derive(Debug)]
pub struct BranchSaved {
    encoder: Saved,
    head: HeadSaved,
    projected: Tensor,
}

impl Branch {
    /// Puts a head on an encoder.
    #[must_use]
    pub fn new(encoder: Box<dyn Encoder>, head: Head) -> Self {
        Self { encoder, head }
    }

    /// The same branch with the same values in memory of its own; how f_k starts.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn fork(&self) -> Result<Self, MocoError> {
        Ok(Self { encoder: self.encoder.fork()?, head: self.head.fork()? })
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
    pub fn forward(&mut self, images: &Tensor) -> Result<(Tensor, BranchSaved), MocoError> {
        let (features, encoder) = self.encoder.forward(images)?;
        let (projected, head) = self.head.forward(&features)?;
        let normalized = l2_normalize(&projected)?;
        Ok((normalized, BranchSaved { encoder, head, projected }))
    }

    /// The same features; keeps nothing.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn project(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, MocoError> {
        let features = self.encoder.features(images, mode)?;
        Ok(l2_normalize(&self.head.forward(&features)?.0)?)
    }

    /// Gradients of all parameters from the gradient `[N, dim]` of the normalized features.
    ///
    /// # Errors
    /// If the gradient does not fit.
    pub fn backward(&self, saved: BranchSaved, dq: &Tensor) -> Result<Gradients, MocoError> {
        let BranchSaved { encoder, head, projected } = saved;
        let dz = l2_normalize_backward(&projected, dq)?;
        let mut of_head = Gradients::new();
        let df = self.head.backward(&head, &dz, &mut of_head)?;
        let mut gradients = self.encoder.backward(encoder, &df)?;
        gradients.extend(of_head);
        Ok(gradients)
    }

    /// The momentum update of Eq. (2): every parameter moves towards `query`'s; buffers are not touched.
    pub(crate) fn follow(&self, query: &Self, key_momentum: f64) -> Result<(), MocoError> {
        let mut updates = Vec::new();
        for (key, query) in self.stores().into_iter().zip(query.stores()) {
            for ((_, key), (_, query)) in key.parameters().zip(query.parameters()) {
                updates.push(EmaUpdate::new(key, query)?);
            }
        }
        Ok(ema_(&updates, key_momentum)?)
    }
}
