//! Which image comes when.

use moco_ingest::{Sampler, Source};
use moco_rng::Seed;

use crate::error::FeedError;

/// The order in which a run sees its training images, and where in it the feed starts.
#[derive(Debug, Clone)]
pub struct TrainingOrder {
    /// Which sample comes at which position.
    pub sampler: Sampler,
    /// Samples consumed before the first batch of the feed.
    pub position: u64,
    /// Seed of the views and of the substitutes of bad samples.
    pub seed: Seed,
    /// Images of a batch.
    pub batch_size: usize,
}

impl TrainingOrder {
    /// The order of `source` from its start; `window_shards` are mixed at a time, 0 = all.
    ///
    /// # Errors
    /// If the batch is larger than the data set, or the source has no room for such windows.
    pub fn windowed(
        source: &dyn Source,
        window_shards: usize,
        seed: Seed,
        batch_size: usize,
    ) -> Result<Self, FeedError> {
        let shard_sizes = source.shard_sizes();
        let n_shards = shard_sizes.len();
        let in_window = if window_shards == 0 { n_shards } else { window_shards.min(n_shards) };
        let limit = source.max_window_shards();
        if in_window > limit {
            return Err(FeedError::Window { window_shards, n_shards, limit });
        }
        let sampler = Sampler::windowed(seed, &shard_sizes, in_window.max(1), batch_size as u64)?;
        Ok(Self { sampler, position: 0, seed, batch_size })
    }

    /// The same order, from after the batches of `global_step` steps on.
    #[must_use]
    pub fn after_steps(self, global_step: u64) -> Self {
        Self { position: global_step * self.batch_size as u64, ..self }
    }
}
