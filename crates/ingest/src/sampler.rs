//! Which sample comes when: a pure function of the seed and the number of samples consumed so far.

use moco_rng::{At, Permutation, Purpose, Seed};

use crate::error::IngestError;

/// The order of samples over a whole run.
///
/// Each epoch is a fresh permutation of the data set, and the incomplete last batch of an epoch is
/// dropped. A run that resumes needs only the position, the number of samples it has consumed.
///
/// ```
/// # use moco_ingest::Sampler;
/// # use moco_rng::Seed;
/// let sampler = Sampler::new(Seed(0), 10, 4)?;
/// assert_eq!(sampler.steps_per_epoch(), 2);
/// assert_eq!(sampler.slot(8).epoch, 1);
/// assert_eq!(sampler.slots_from(3).next(), Some(sampler.slot(3)));
/// # Ok::<(), moco_ingest::IngestError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    seed: Seed,
    n_samples: u64,
    batch_size: u64,
}

/// One place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Samples consumed before this one since the start of the run.
    pub position: u64,
    /// The sample that belongs here.
    pub sample_index: u64,
}

impl Sampler {
    /// The order for `n_samples` samples in batches of `batch_size`, which counts all ranks.
    ///
    /// # Errors
    /// If the batch is empty or larger than the data set.
    pub fn new(seed: Seed, n_samples: u64, batch_size: u64) -> Result<Self, IngestError> {
        if batch_size == 0 || n_samples < batch_size {
            return Err(IngestError::BatchSize { n_samples, batch_size });
        }
        Ok(Self { seed, n_samples, batch_size })
    }

    /// Whole batches in an epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.n_samples / self.batch_size
    }

    /// The sample at `position`. After 2³² epochs the orders repeat.
    #[must_use]
    pub fn slot(&self, position: u64) -> Slot {
        let samples_per_epoch = self.steps_per_epoch() * self.batch_size;
        #[expect(clippy::cast_possible_truncation, reason = "wraps as documented")]
        let epoch = (position / samples_per_epoch) as u32;
        let order =
            Permutation::new(self.seed.stream(Purpose::Order, At::epoch(epoch)), self.n_samples);
        Slot { epoch, position, sample_index: order.get(position % samples_per_epoch) }
    }

    /// The slots from `position` on, without end.
    pub fn slots_from(&self, position: u64) -> impl Iterator<Item = Slot> + Send + use<> {
        let sampler = *self;
        (position..).map(move |position| sampler.slot(position))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sample_indices(sampler: &Sampler, from: u64, n: usize) -> Vec<u64> {
        sampler.slots_from(from).take(n).map(|slot| slot.sample_index).collect()
    }

    proptest! {
        #[test]
        fn each_epoch_is_a_set_of_distinct_samples(
            seed: u64, n_samples in 1_u64..400, divisor in 1_u64..20, epoch in 0_u64..5,
        ) {
            let batch_size = (n_samples / divisor).max(1);
            let sampler = Sampler::new(Seed(seed), n_samples, batch_size).unwrap();
            let n = sampler.steps_per_epoch() * batch_size;
            prop_assert!(n <= n_samples && n + batch_size > n_samples);
            let slots: Vec<Slot> =
                sampler.slots_from(epoch * n).take(usize::try_from(n).unwrap()).collect();
            let distinct: BTreeSet<u64> = slots.iter().map(|slot| slot.sample_index).collect();
            prop_assert_eq!(distinct.len(), slots.len());
            prop_assert!(distinct.iter().all(|index| *index < n_samples));
            prop_assert!(slots.iter().all(|slot| u64::from(slot.epoch) == epoch));
            prop_assert_eq!(u64::from(sampler.slot((epoch + 1) * n).epoch), epoch + 1);
        }

        #[test]
        fn resuming_anywhere_gives_the_tail(seed: u64, n_samples in 4_u64..200, from in 0_u64..500) {
            let sampler = Sampler::new(Seed(seed), n_samples, 4).unwrap();
            let whole: Vec<Slot> = sampler.slots_from(0).take(600).collect();
            let resumed: Vec<Slot> = sampler.slots_from(from).take(100).collect();
            let from = usize::try_from(from).unwrap();
            prop_assert_eq!(&whole[from..from + 100], resumed.as_slice());
            prop_assert!(whole.iter().zip(0..).all(|(slot, position)| slot.position == position));
        }
    }

    #[test]
    fn an_epoch_without_remainder_holds_all_samples_in_a_new_order() {
        let sampler = Sampler::new(Seed(3), 60, 20).unwrap();
        let first = sample_indices(&sampler, 0, 60);
        let second = sample_indices(&sampler, 60, 60);
        let all: BTreeSet<u64> = (0..60).collect();
        assert_eq!(first.iter().copied().collect::<BTreeSet<_>>(), all);
        assert_eq!(second.iter().copied().collect::<BTreeSet<_>>(), all);
        assert_ne!(first, second);
        assert_ne!(first, (0..60).collect::<Vec<_>>());
        assert_ne!(first, sample_indices(&Sampler::new(Seed(4), 60, 20).unwrap(), 0, 60));
    }

    #[test]
    fn the_batch_size_does_not_change_the_order_of_an_epoch() {
        let small = Sampler::new(Seed(3), 61, 1).unwrap();
        let large = Sampler::new(Seed(3), 61, 60).unwrap();
        assert_eq!(sample_indices(&small, 0, 60), sample_indices(&large, 0, 60));
    }

    #[test]
    fn impossible_batches_are_refused() {
        let message = |n_samples, batch_size| {
            Sampler::new(Seed(0), n_samples, batch_size).unwrap_err().to_string()
        };
        assert_eq!(
            message(63, 64),
            "a batch of 64 samples cannot be drawn from 63; lower the batch size or add data"
        );
        assert!(message(63, 0).starts_with("a batch of 0 samples"));
        assert!(message(0, 1).contains("from 0"));
    }
}
