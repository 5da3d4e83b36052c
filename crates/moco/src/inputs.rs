//! What a step is given besides the model.

use candle_core::{DType, Device, Tensor};
use moco_ops::{copy_, upload};
use moco_optim::learning_rate;

use crate::error::{During, MocoError};
use crate::shuffle::Shuffle;
use crate::step::{Moco, StepViews};

/// All that differs from one step to the next, as tensors: a recorded step finds it in the same memory
/// each time.
pub(crate) struct Inputs {
    pub(crate) views: StepViews,
    /// Permutations of the key images, one for each direction of the loss.
    pub(crate) shuffles: Vec<Shuffle>,
    /// `[1]`.
    pub(crate) lr: Tensor,
    /// The queue's column that the first key goes to, u32 `[1]`.
    pub(crate) ptr: Tensor,
}

impl Inputs {
    /// Those of the next step; all but the views are in the host's memory.
    pub(crate) fn next(
        moco: &Moco,
        views: &StepViews,
        shuffles: &[Shuffle],
        lr: f64,
    ) -> Result<Self, MocoError> {
        let parameters = moco.encoder_q.encoder().params().dtype_and_device();
        let dtype = parameters.map_or(DType::F32, |(dtype, _)| dtype);
        Ok(Self {
            views: views.clone(),
            shuffles: shuffles.iter().take(moco.n_directions()).cloned().collect(),
            lr: learning_rate(lr, dtype, &Device::Cpu)?,
            ptr: moco.queue.ptr_tensor()?,
        })
    }

    /// The same where the model computes.
    pub(crate) fn upload(&self, device: &Device) -> Result<Self, MocoError> {
        let shuffles = self.shuffles.iter().map(|shuffle| shuffle.upload(device));
        Ok(Self {
            views: self.views.clone(),
            shuffles: shuffles.collect::<Result<_, _>>()?,
            lr: upload(&self.lr, device)?,
            ptr: upload(&self.ptr, device)?,
        })
    }

    /// The same where the model computes, in memory that nobody else has.
    pub(crate) fn copy(&self, device: &Device) -> Result<Self, MocoError> {
        let copy = |view: &Tensor| view.copy().during("copying views");
        let StepViews { im_q, im_k } = &self.views;
        let views = StepViews { im_q: copy(im_q)?, im_k: copy(im_k)? };
        Ok(Self { views, ..self.upload(device)? })
    }

    /// Takes over the inputs of another step of the same size, in the same memory.
    pub(crate) fn replace(&self, by: &Self) -> Result<(), MocoError> {
        copy_(&self.views.im_q, &by.views.im_q)?;
        copy_(&self.views.im_k, &by.views.im_k)?;
        for (shuffle, by) in self.shuffles.iter().zip(&by.shuffles) {
            shuffle.replace(by)?;
        }
        copy_(&self.lr, &by.lr)?;
        Ok(copy_(&self.ptr, &by.ptr)?)
    }
}
