//! A step's inputs in device memory that a captured step reads each time.

use candle_core::{Device, Tensor};
use moco_ops::{copy_, upload};

use crate::batch::{Batch, StepInputs};
use crate::error::{During, MocoError};

impl StepInputs {
    /// A copy on the model's device; the views are there already and are shared.
    pub(crate) fn upload(&self, device: &Device) -> Result<Self, MocoError> {
        let shuffles = self.shuffles.iter().map(|shuffle| shuffle.upload(device));
        Ok(Self {
            batch: self.batch.clone(),
            shuffles: shuffles.collect::<Result<_, _>>()?,
            lr: upload(&self.lr, device)?,
            queue_ptr: upload(&self.queue_ptr, device)?,
        })
    }

    /// A copy on the model's device that shares no memory.
    pub(super) fn deep_copy(&self, device: &Device) -> Result<Self, MocoError> {
        let copy = |view: &Tensor| view.copy().during("copying views");
        let Batch { im_q, im_k, sample_indices } = &self.batch;
        let (im_q, im_k) = (copy(im_q)?, copy(im_k)?);
        let batch = Batch { im_q, im_k, sample_indices: sample_indices.clone() };
        Ok(Self { batch, ..self.upload(device)? })
    }

    /// Overwrites these inputs by those of another step of the same size, in the same memory.
    pub(super) fn overwrite(&self, by: &Self) -> Result<(), MocoError> {
        copy_(&self.batch.im_q, &by.batch.im_q)?;
        copy_(&self.batch.im_k, &by.batch.im_k)?;
        for (shuffle, by) in self.shuffles.iter().zip(&by.shuffles) {
            shuffle.replace(by)?;
        }
        copy_(&self.lr, &by.lr)?;
        Ok(copy_(&self.queue_ptr, &by.queue_ptr)?)
    }
}
