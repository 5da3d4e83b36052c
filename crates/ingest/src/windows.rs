//! Permutes shards, and samples within windows of shards, without a table of all samples.

use moco_rng::{At, Permutation, Purpose, Seed};

use crate::error::IngestError;

/// Streams of an epoch's order; 0 is that of a permutation without windows.
const VIEW_SHARDS: u32 = 1;
const VIEW_WINDOW: u32 = 2;

/// How many samples each shard has, and how many shards are read at a time.
#[derive(Debug)]
pub(crate) struct ShardTable {
    /// Index of the first sample of each shard, then the number of all samples.
    starts: Vec<u64>,
    n_windows: usize,
}

/// A few shards of an epoch whose samples are permuted together.
#[derive(Debug)]
pub(crate) struct Window {
    epoch: u32,
    /// Position within the epoch of its first sample, and of the first one after it.
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// For each shard the samples before it in this window, and the index of its first sample.
    shards: Vec<(u64, u64)>,
    order: Permutation,
}

impl ShardTable {
    pub(crate) fn new(shard_sizes: &[u64], window_shards: usize) -> Result<Self, IngestError> {
        if window_shards == 0 {
            return Err(IngestError::WindowEmpty);
        }
        let mut starts = Vec::with_capacity(shard_sizes.len() + 1);
        let mut sum = 0_u64;
        starts.push(0);
        for size in shard_sizes {
            sum = sum.saturating_add(*size);
            starts.push(sum);
        }
        Ok(Self { starts, n_windows: shard_sizes.len().div_ceil(window_shards).max(1) })
    }

    pub(crate) fn n_samples(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(crate) fn n_windows(&self) -> usize {
        self.n_windows
    }

    /// Memory that the table takes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.starts.as_slice())
    }

    /// The window that holds a position of an epoch.
    pub(crate) fn window_at(&self, seed: Seed, epoch: u32, position: u64) -> Window {
        let n_shards = self.starts.len() - 1;
        let stream = seed.stream(Purpose::Order, At { epoch, index: 0, view: VIEW_SHARDS });
        let order = Permutation::new(stream, n_shards as u64);
        let (mut first, mut window_idx) = (0, 0);
        loop {
            // Windows differ by one shard at most, so that none at the end is left with a few.
            let place = |window: usize| window * n_shards / self.n_windows;
            let mut shards = Vec::with_capacity(n_shards / self.n_windows + 1);
            let mut size = 0;
            for shard in place(window_idx)..place(window_idx + 1) {
                #[expect(clippy::cast_possible_truncation, reason = "less than the table's length")]
                let shard_idx = order.get(shard as u64) as usize;
                shards.push((size, self.starts[shard_idx]));
                size += self.starts[shard_idx + 1] - self.starts[shard_idx];
            }
            if position < first + size || window_idx + 1 == self.n_windows {
                let at = At { epoch, index: window_idx as u64, view: VIEW_WINDOW };
                let order = Permutation::new(seed.stream(Purpose::Order, at), size);
                return Window { epoch, first, end: first + size, shards, order };
            }
            first += size;
            window_idx += 1;
        }
    }
}

impl Window {
    pub(crate) fn holds(&self, epoch: u32, position: u64) -> bool {
        self.epoch == epoch && (self.first..self.end).contains(&position)
    }

    /// The sample at a position of the epoch that the window holds.
    pub(crate) fn sample_at(&self, position: u64) -> u64 {
        let within = self.order.get(position - self.first);
        let after = self.shards.partition_point(|(before, _)| *before <= within);
        let (before, first_sample) = self.shards[after - 1];
        first_sample + (within - before)
    }

    /// Index of the first sample of each shard.
    pub(crate) fn first_samples(&self) -> Vec<u64> {
        self.shards.iter().map(|(_, first_sample)| *first_sample).collect()
    }
}
