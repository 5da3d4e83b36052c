//! Announces to a source which shards come next while the samples of the present ones are read.

use std::sync::Arc;

use crate::{
    error::IngestError,
    sampler::{Sampler, ShardVisit, Slot},
    source::Source,
};

/// Passes on `slots`, in the order of `sampler`. On entering a window of shards it announces to the source
/// the shards of the next one; at the start also those of the first.
pub fn read_ahead<I: Iterator<Item = Slot> + Send + 'static>(
    source: Arc<dyn Source>,
    sampler: &Sampler,
    slots: I,
) -> impl Iterator<Item = Result<Slot, IngestError>> + Send + use<I> {
    let (sampler, mut slots) = (sampler.clone(), slots);
    let mut visits: Option<Box<dyn Iterator<Item = ShardVisit> + Send>> = None;
    // Where the window that was announced last begins.
    let mut announced_from = 0;
    let announce = move |visit: Option<ShardVisit>| -> Result<u64, IngestError> {
        let visit = visit.unwrap_or(ShardVisit { position: u64::MAX, first_samples: Vec::new() });
        // Empty shards at the end of a data set begin where no sample is.
        let firsts = visit.first_samples.iter().filter(|first| **first < source.len());
        firsts.copied().try_for_each(|first| source.will_read(first))?;
        Ok(visit.position)
    };
    std::iter::from_fn(move || {
        let slot = slots.next()?;
        let mut advance = || -> Result<(), IngestError> {
            if visits.is_none() {
                let mut from_here = sampler.visits_from(slot.position);
                announced_from = announce(from_here.next())?;
                visits = Some(Box::new(from_here));
            }
            while let Some(visits) = visits.as_mut().filter(|_| announced_from <= slot.position) {
                announced_from = announce(visits.next())?;
            }
            Ok(())
        };
        Some(advance().map(|()| slot))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use moco_rng::Seed;

    use super::*;
    use crate::source::EncodedSample;

    /// Notes the announced shards; 20 shards of 5 samples and an empty one.
    #[derive(Default)]
    struct Notes(Mutex<Vec<u64>>);

    impl Source for Notes {
        fn len(&self) -> u64 {
            100
        }

        fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
            Err(IngestError::SampleIndex { sample_index, n_samples: 100 })
        }

        fn label(&self, _: u64) -> Result<Option<u32>, IngestError> {
            Ok(None)
        }

        fn n_classes(&self) -> Option<u32> {
            None
        }

        fn shard_sizes(&self) -> Vec<u64> {
            [[5; 20].as_slice(), &[0]].concat()
        }

        fn will_read(&self, sample_index: u64) -> Result<(), IngestError> {
            self.0.lock().unwrap().push(sample_index / 5);
            if sample_index == 95 && self.0.lock().unwrap().len() > 40 {
                return Err(IngestError::SampleIndex { sample_index, n_samples: 100 });
            }
            Ok(())
        }
    }

    #[test]
    fn each_shard_is_told_before_its_window_and_no_more_than_two_windows_ahead() {
        for (window_shards, from, rank) in
            [(4, 0, None), (4, 57, None), (3, 8, Some(1)), (50, 0, None)]
        {
            let source = Arc::new(Notes::default());
            let sizes = source.shard_sizes();
            let sampler = Sampler::windowed(Seed(3), &sizes, window_shards, 10).unwrap();
            let slots: Box<dyn Iterator<Item = Slot> + Send> = match rank {
                None => Box::new(sampler.slots_from(from)),
                Some(rank) => Box::new(sampler.slots_of_rank(from, rank, 2).unwrap()),
            };
            let as_source: Arc<dyn Source> = source.clone();
            let n_shards = window_shards.min(sizes.len());
            for (n_read, slot) in read_ahead(as_source, &sampler, slots).take(60).enumerate() {
                let slot = slot.unwrap();
                let announced = source.0.lock().unwrap();
                assert!(announced.contains(&(slot.sample_index / 5)), "{slot:?} of {announced:?}");
                let n_windows = 2 + 2 * n_read / (5 * (n_shards - 1)) + 1;
                assert!(announced.len() <= n_windows * n_shards, "{} at {n_read}", announced.len());
            }
        }
    }

    #[test]
    fn a_source_that_cannot_fetch_ends_the_slots_with_its_error() {
        let source: Arc<dyn Source> = Arc::new(Notes::default());
        let sampler = Sampler::windowed(Seed(3), &source.shard_sizes(), 4, 10).unwrap();
        let slots = sampler.slots_from(0);
        let error = read_ahead(source, &sampler, slots).find_map(Result::err).unwrap();
        assert_eq!(error.to_string(), "sample 95 was asked for, but the data set has 100");
    }
}
