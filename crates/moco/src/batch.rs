//! The inputs of a training step: two views, and everything else that differs from step to step.

use candle_core::{DType, Tensor};

use crate::error::{During, MocoError};
use crate::shuffle::Shuffle;

/// Two views of each image of a batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The queries' images, `[N, 3, H, W]`: x_q of Algorithm 1.
    pub im_q: Tensor,
    /// The keys' images, `[N, 3, H, W]`: x_k of Algorithm 1.
    pub im_k: Tensor,
    /// The images' indices in the data set, `N` of them; empty if unknown. An error names an image by it.
    pub sample_indices: Vec<u64>,
}

/// The inputs that differ from step to step, as tensors.
#[derive(Debug)]
pub(crate) struct StepInputs {
    pub(crate) batch: Batch,
    /// Permutations of the key images, one for each direction of the loss.
    pub(crate) shuffles: Vec<Shuffle>,
    /// `[1]`.
    pub(crate) lr: Tensor,
    /// The queue's column that the first key goes to, u32 `[1]`.
    pub(crate) queue_ptr: Tensor,
}

/// Which view is encoded by f_q and which by f_k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direction<'a> {
    /// `[N, 3, H, W]`.
    pub(crate) im_q: &'a Tensor,
    /// `[N, 3, H, W]`.
    pub(crate) im_k: &'a Tensor,
    pub(crate) shuffle: &'a Shuffle,
}

impl Batch {
    /// The directions of the loss, one for each permutation: view 1 as query and view 2 as key; with the
    /// symmetric loss then the other way round.
    pub(crate) fn directions<'a>(
        &'a self,
        shuffles: &'a [Shuffle],
    ) -> impl Iterator<Item = Direction<'a>> {
        let views = [(&self.im_q, &self.im_k), (&self.im_k, &self.im_q)];
        let directions = views.into_iter().zip(shuffles);
        directions.map(|((im_q, im_k), shuffle)| Direction { im_q, im_k, shuffle })
    }

    /// The first image of either view that holds NaN or infinite pixels, as (view, sample index).
    ///
    /// # Errors
    /// If candle fails.
    pub(crate) fn first_image_not_finite(&self) -> Result<Option<(u32, u64)>, MocoError> {
        for (view, images) in [(1, &self.im_q), (2, &self.im_k)] {
            let sums = images.abs().and_then(|x| x.flatten_from(1)?.to_dtype(DType::F64)?.sum(1));
            let sums = sums.and_then(|sums| sums.to_vec1::<f64>()).during("looking for NaN")?;
            if let Some(i) = sums.iter().position(|sum| !sum.is_finite()) {
                return Ok(self.sample_indices.get(i).map(|index| (view, *index)));
            }
        }
        Ok(None)
    }
}
