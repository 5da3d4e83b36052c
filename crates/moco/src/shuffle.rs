//! Shuffling BN: the key images are permuted before the key encoder, and the keys put back.

use candle_core::{Device, Tensor};
use moco_ops::{copy_, select_rows, upload};
use moco_rng::{At, Purpose, Seed};

use crate::error::{During, MocoError};

/// A permutation of a batch and its inverse (MoCo v1 §3.3; official `builder.py:81-126`). Since batch
/// norm sees contiguous groups of the batch, the positive pair's statistics come from different images.
#[derive(Debug, Clone)]
pub struct Shuffle {
    /// u32 `[N]`.
    order: Tensor,
    /// u32 `[N]`.
    inverse: Tensor,
}

impl Shuffle {
    /// The permutation of a step, on the CPU; the same on every rank, so it needs no broadcast
    /// (deviation D2).
    ///
    /// # Errors
    /// As [`Shuffle::new`].
    pub fn of_step(seed: Seed, global_step: u64, view: u32, n: usize) -> Result<Self, MocoError> {
        let at = At { epoch: 0, index: global_step, view };
        let mut order: Vec<u32> = (0..u32::try_from(n).unwrap_or(u32::MAX)).collect();
        seed.stream(Purpose::ShuffleBn, at).shuffle(&mut order);
        Self::new(&order)
    }

    /// The permutations of a step, one for each direction of the loss.
    ///
    /// # Errors
    /// As [`Shuffle::new`].
    pub(crate) fn of_directions(
        seed: Seed,
        global_step: u64,
        n_directions: usize,
        n: usize,
    ) -> Result<Vec<Self>, MocoError> {
        let views = (0..).take(n_directions);
        views.map(|view| Self::of_step(seed, global_step, view, n)).collect()
    }

    /// This permutation, on the CPU: the image at place i is `order[i]`.
    ///
    /// # Errors
    /// If `order` is no permutation.
    pub fn new(order: &[u32]) -> Result<Self, MocoError> {
        let n = order.len();
        let mut inverse = vec![u32::MAX; n];
        for (place, &image) in (0_u32..).zip(order) {
            match inverse.get_mut(image as usize) {
                None => return Err(MocoError::IndexOutOfRange { index: image, n }),
                Some(entry) if *entry != u32::MAX => {
                    return Err(MocoError::IndexTwice { index: image });
                }
                Some(entry) => *entry = place,
            }
        }
        let indices = |indices: &[u32]| Tensor::new(indices, &Device::Cpu).during("shuffling");
        Ok(Self { order: indices(order)?, inverse: indices(&inverse)? })
    }

    /// The same permutation for tensors on a device.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn upload(&self, device: &Device) -> Result<Self, MocoError> {
        Ok(Self { order: upload(&self.order, device)?, inverse: upload(&self.inverse, device)? })
    }

    /// Overwrites this permutation by another one of as many images, in the same memory.
    pub(crate) fn replace(&self, by: &Self) -> Result<(), MocoError> {
        copy_(&self.order, &by.order)?;
        Ok(copy_(&self.inverse, &by.inverse)?)
    }

    /// Rows in shuffled order.
    ///
    /// # Errors
    /// If the batch has another size or is on another device.
    pub fn apply(&self, images: &Tensor) -> Result<Tensor, MocoError> {
        Ok(select_rows(images, &self.order)?)
    }

    /// Rows in their old order.
    ///
    /// # Errors
    /// If the batch has another size or is on another device.
    pub fn undo(&self, keys: &Tensor) -> Result<Tensor, MocoError> {
        Ok(select_rows(keys, &self.inverse)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn rows(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn undo_is_the_inverse_and_steps_differ() {
        let x = Tensor::arange(0_f32, 16.0, &Device::Cpu).unwrap().reshape((16, 1)).unwrap();
        let shuffle = Shuffle::of_step(Seed(1), 5, 0, 16).unwrap();
        let shuffled = shuffle.apply(&x).unwrap();
        assert_ne!(rows(&shuffled), rows(&x));
        assert_eq!(rows(&shuffle.undo(&shuffled).unwrap()), rows(&x));
        let next = Shuffle::of_step(Seed(1), 6, 0, 16).unwrap();
        assert_ne!(rows(&next.apply(&x).unwrap()), rows(&shuffled));
    }

    #[test]
    fn follows_a_given_order_also_for_images() {
        let shuffle = Shuffle::new(&[2, 0, 1]).unwrap();
        let x = Tensor::arange(0_f32, 12.0, &Device::Cpu).unwrap().reshape((3, 1, 2, 2)).unwrap();
        let expected = [8.0, 9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(rows(&shuffle.apply(&x).unwrap()), expected);
        for (order, expected) in [
            ([0, 0, 1], "index 0 occurs twice in the permutation"),
            ([0, 3, 1], "index 3 in a permutation of 3 images"),
        ] {
            assert_eq!(Shuffle::new(&order).unwrap_err().to_string(), expected);
        }
    }
}
