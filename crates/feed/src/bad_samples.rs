//! Substitutes for training images that cannot be used.

use std::fmt;
use std::sync::Arc;

use moco_ingest::{BadSample, EncodedSample, Sampler, Slot, Source};
use moco_rng::{At, Purpose, Seed};

use crate::error::FeedError;
use crate::order::TrainingOrder;

/// Draws before the data set counts as broken: where half of it is, one place in 2¹⁶ ends the run.
const ATTEMPTS: u32 = 16;
/// Of these, the draws within the current window, whose shards are open already; all of it may be bad.
const ATTEMPTS_NEAR: u32 = 8;

/// Draws substitutes: a pure function of the seed, the position and the data.
pub struct Substitutes {
    source: Arc<dyn Source>,
    sampler: Sampler,
    seed: Seed,
}

impl fmt::Debug for Substitutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substitutes").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

impl Substitutes {
    /// Substitutes for the bad samples of a run in this order.
    #[must_use]
    pub fn new(source: &Arc<dyn Source>, order: &TrainingOrder) -> Self {
        let TrainingOrder { sampler, seed, .. } = order;
        Self { source: Arc::clone(source), sampler: sampler.clone(), seed: *seed }
    }

    /// What `make` makes of the sample of a slot, or of its substitute where it cannot be used, and the
    /// samples that could not be used: what a run that skips them sees there.
    ///
    /// # Errors
    /// If there is no substitute, or it is not the samples that are bad.
    pub fn sample<T>(
        &self,
        slot: Slot,
        make: impl Fn(EncodedSample) -> Result<T, FeedError>,
    ) -> Result<(Vec<BadSample>, T), FeedError> {
        let made = self.source.read(slot.sample_index).map_err(FeedError::from).and_then(&make);
        match made.as_ref().err().and_then(|error| error.bad_sample(slot.sample_index)) {
            Some(bad_sample) => self.find(slot, bad_sample, make),
            None => Ok((Vec::new(), made?)),
        }
    }

    /// What `make` makes of the first sample drawn that it can use, and the samples that could not be
    /// used: the slot's own, which is given, and those drawn before.
    pub(crate) fn find<T>(
        &self,
        slot: Slot,
        bad_sample: BadSample,
        make: impl Fn(EncodedSample) -> Result<T, FeedError>,
    ) -> Result<(Vec<BadSample>, T), FeedError> {
        let mut bad_samples = vec![bad_sample];
        let (first, n) = self.window(slot.position);
        for attempt in 0..ATTEMPTS {
            let at = At { epoch: slot.epoch, index: slot.position, view: attempt };
            let mut stream = self.seed.stream(Purpose::Substitute, at);
            let sample_index = if attempt < ATTEMPTS_NEAR {
                self.sampler.slot(first + stream.below(n)).sample_index
            } else {
                stream.below(self.source.len().max(1))
            };
            if bad_samples.iter().any(|bad| bad.sample_index == sample_index) {
                continue;
            }
            let made = self.source.read(sample_index).map_err(FeedError::from).and_then(&make);
            match made.as_ref().err().and_then(|error| error.bad_sample(sample_index)) {
                Some(bad_sample) => bad_samples.push(bad_sample),
                None => return Ok((bad_samples, made?)),
            }
        }
        let (position, n_bad_samples) = (slot.position, bad_samples.len());
        let last = bad_samples.swap_remove(n_bad_samples - 1);
        Err(FeedError::NoSubstitute { position, attempts: ATTEMPTS, n_bad_samples, last })
    }

    /// First position and length of the window that a position lies in.
    fn window(&self, position: u64) -> (u64, u64) {
        let mut starts = self.sampler.visits_from(position).map(|visit| visit.position);
        let first = starts.next().unwrap_or(position);
        let end = starts.next().unwrap_or(position);
        (first, end.saturating_sub(first).max(1))
    }
}
