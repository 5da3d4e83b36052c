//! Which sample comes when: a pure function of the seed and the number of samples consumed so far.

use std::sync::Arc;

use moco_rng::{At, Permutation, Purpose, Seed};

use crate::{
    error::IngestError,
    windows::{ShardTable, Window},
};

/// The order of samples over a whole run.
///
/// Each epoch is a fresh permutation of the data set, and the incomplete last batch of an epoch is
/// dropped. A run that resumes needs only the position, the number of samples it has consumed.
///
/// A data set of more shards than can be available at once is permuted in two steps: its shards, and then
/// the samples within windows of so many shards. No table has an entry for each sample.
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
#[derive(Debug, Clone)]
pub struct Sampler {
    seed: Seed,
    n_samples: u64,
    batch_size: u64,
    shards: Option<Arc<ShardTable>>,
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

/// The shards that are read from a position on, until the next such list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardVisit {
    /// Position of the first sample that comes from these shards.
    pub position: u64,
    /// Index of the first sample of each shard.
    pub first_samples: Vec<u64>,
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
        Ok(Self { seed, n_samples, batch_size, shards: None })
    }

    /// The order for shards of these numbers of samples, of which at most `window_shards` are read at a
    /// time. Where the window holds all shards, the order is that of [`Sampler::new`].
    ///
    /// # Errors
    /// If the batch is empty or larger than the data set, or the window holds no shard.
    pub fn windowed(
        seed: Seed,
        shard_sizes: &[u64],
        window_shards: usize,
        batch_size: u64,
    ) -> Result<Self, IngestError> {
        let shards = ShardTable::new(shard_sizes, window_shards)?;
        let sampler = Self::new(seed, shards.n_samples(), batch_size)?;
        Ok(Self { shards: Some(Arc::new(shards)), ..sampler })
    }

    /// Whole batches in an epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.n_samples / self.batch_size
    }

    /// Samples in the whole batches of an epoch.
    fn samples_per_epoch(&self) -> u64 {
        self.steps_per_epoch() * self.batch_size
    }

    /// The sample at `position`. After 2³² epochs the orders repeat. Where there are windows this walks
    /// over the shards of the epoch, which [`Sampler::slots_from`] does once a window.
    #[must_use]
    pub fn slot(&self, position: u64) -> Slot {
        self.slot_in(&mut None, position)
    }

    /// The slots from `position` on, without end.
    pub fn slots_from(&self, position: u64) -> impl Iterator<Item = Slot> + Send + use<> {
        let (sampler, mut window) = (self.clone(), None);
        (position..).map(move |position| sampler.slot_in(&mut window, position))
    }

    /// The slots of one of `world_size` ranks from `position` on, without end: of each batch the part
    /// numbered `rank`. All ranks together take what [`Sampler::slots_from`] gives, so that a run can
    /// continue on another number of ranks at the same batch size.
    ///
    /// # Errors
    /// If the batch cannot be split evenly, or there is no such rank.
    pub fn slots_of_rank(
        &self,
        position: u64,
        rank: u64,
        world_size: u64,
    ) -> Result<impl Iterator<Item = Slot> + Send + use<>, IngestError> {
        if rank >= world_size || !self.batch_size.is_multiple_of(world_size) {
            return Err(IngestError::Ranks { rank, world_size, batch_size: self.batch_size });
        }
        let (sampler, batch_size, mut window) = (self.clone(), self.batch_size, None);
        let local = batch_size / world_size;
        let is_ours = move |position: &u64| position % batch_size / local == rank;
        let positions = (position..).filter(is_ours);
        Ok(positions.map(move |position| sampler.slot_in(&mut window, position)))
    }

    /// Which shards are read from `position` on, window after window and without end. Without windows
    /// all shards come in one list an epoch, and none where the sampler knows of no shards.
    pub fn visits_from(&self, position: u64) -> impl Iterator<Item = ShardVisit> + Send + use<> {
        let (sampler, mut position) = (self.clone(), position);
        std::iter::repeat_with(move || {
            let (epoch, within) = sampler.epoch_of(position);
            let start = position - within;
            let window = sampler.shards.as_ref().map(|s| s.window_at(sampler.seed, epoch, within));
            let (first, end) =
                window.as_ref().map_or((0, sampler.samples_per_epoch()), |w| (w.first, w.end));
            position = start + end.min(sampler.samples_per_epoch());
            let first_samples = window.map_or_else(Vec::new, |window| window.first_samples());
            ShardVisit { position: start + first, first_samples }
        })
    }

    /// The epoch that a position lies in, and the position within it.
    fn epoch_of(&self, position: u64) -> (u32, u64) {
        let samples_per_epoch = self.samples_per_epoch();
        #[expect(clippy::cast_possible_truncation, reason = "wraps as documented")]
        let epoch = (position / samples_per_epoch) as u32;
        (epoch, position % samples_per_epoch)
    }

    /// `window` holds on to what neighboring positions share.
    fn slot_in(&self, window: &mut Option<Window>, position: u64) -> Slot {
        let (epoch, within) = self.epoch_of(position);
        let windows = self.shards.as_ref().filter(|shards| shards.n_windows() > 1);
        let sample_index = match windows {
            None => {
                let stream = self.seed.stream(Purpose::Order, At::epoch(epoch));
                Permutation::new(stream, self.n_samples).get(within)
            }
            Some(shards) => match window {
                Some(window) if window.holds(epoch, within) => window.sample_at(within),
                _ => window.insert(shards.window_at(self.seed, epoch, within)).sample_at(within),
            },
        };
        Slot { epoch, position, sample_index }
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

    /// Shards of 1 to 9 samples, some empty.
    fn sizes(n_shards: u64) -> Vec<u64> {
        (0..n_shards).map(|i| (i * 7) % 10).collect()
    }

    #[test]
    fn a_window_of_all_shards_keeps_the_order_without_shards() {
        let sizes = sizes(20);
        let n = sizes.iter().sum();
        let plain = Sampler::new(Seed(5), n, 8).unwrap();
        for window_shards in [20, 1000] {
            let windowed = Sampler::windowed(Seed(5), &sizes, window_shards, 8).unwrap();
            assert_eq!(sample_indices(&windowed, 0, 300), sample_indices(&plain, 0, 300));
        }
    }

    proptest! {
        #[test]
        fn windows_hold_each_sample_once_and_resume_anywhere(
            seed: u64, n_shards in 2_u64..30, window_shards in 1_usize..12, epoch in 0_u64..3, from in 0_u64..300,
        ) {
            let sizes = sizes(n_shards);
            let n: u64 = sizes.iter().sum();
            let sampler = Sampler::windowed(Seed(seed), &sizes, window_shards, 1).unwrap();
            let whole = sample_indices(&sampler, epoch * n, usize::try_from(n).unwrap());
            prop_assert_eq!(whole.iter().copied().collect::<BTreeSet<_>>(), (0..n).collect());
            let tail: Vec<Slot> = sampler.slots_from(from).take(50).collect();
            let one_by_one: Vec<Slot> = (from..from + 50).map(|at| sampler.slot(at)).collect();
            prop_assert_eq!(tail, one_by_one);
        }

        #[test]
        fn visits_name_the_shards_that_are_read(
            seed: u64, window_shards in 1_usize..12, batch_size in 1_u64..9, from in 0_u64..300,
        ) {
            let sizes = sizes(23);
            let firsts: Vec<u64> =
                sizes.iter().scan(0, |sum, size| { *sum += size; Some(*sum - size) }).collect();
            let sampler = Sampler::windowed(Seed(seed), &sizes, window_shards, batch_size).unwrap();
            let visits: Vec<ShardVisit> = sampler.visits_from(from).take(60).collect();
            prop_assert!(visits[0].position <= from);
            for pair in visits.windows(2) {
                prop_assert!(pair[0].first_samples.len() <= window_shards);
                let slots = sampler.slots_from(pair[0].position);
                for slot in slots.take_while(|slot| slot.position < pair[1].position) {
                    let shard = firsts.partition_point(|first| *first <= slot.sample_index) - 1;
                    prop_assert!(pair[0].first_samples.contains(&firsts[shard]));
                }
            }
        }

        #[test]
        fn ranks_share_each_batch_out(seed: u64, from in 0_u64..200, half in 1_u64..4) {
            let batch_size = 2 * half;
            let sampler = Sampler::windowed(Seed(seed), &sizes(12), 3, batch_size).unwrap();
            let n_steps = 20;
            let start = from / batch_size * batch_size;
            let n = usize::try_from(n_steps * batch_size).unwrap();
            let all: Vec<Slot> = sampler.slots_from(start).take(n).collect();
            for world_size in [1, 2, batch_size] {
                let mut lanes: Vec<_> = (0..world_size)
                    .map(|rank| sampler.slots_of_rank(start, rank, world_size).unwrap())
                    .collect();
                let local = usize::try_from(batch_size / world_size).unwrap();
                let shared: Vec<Slot> = (0..n_steps)
                    .flat_map(|_| lanes.iter_mut().flat_map(|l| l.take(local)).collect::<Vec<_>>())
                    .collect();
                prop_assert_eq!(&shared, &all);
            }
        }
    }

    #[test]
    fn neighbors_of_a_window_come_from_several_shards_and_epochs_differ() {
        let sampler = Sampler::windowed(Seed(1), &[100; 64], 8, 1).unwrap();
        let shards_of = |from| -> BTreeSet<u64> {
            sample_indices(&sampler, from, 800).iter().map(|index| index / 100).collect()
        };
        assert_eq!(shards_of(0).len(), 8);
        assert_ne!(shards_of(0), shards_of(6400));
        assert_ne!(shards_of(0), (0..8).collect());
        let near: BTreeSet<u64> =
            sample_indices(&sampler, 0, 40).iter().map(|index| index / 100).collect();
        assert!(near.len() >= 6, "{near:?}");
    }

    #[test]
    fn a_billion_samples_need_a_number_for_each_shard_only() {
        let sizes = vec![10_000; 100_000];
        let sampler = Sampler::windowed(Seed(0), &sizes, 64, 4096).unwrap();
        assert_eq!(sampler.n_samples, 1_000_000_000);
        let table = sampler.shards.as_ref().unwrap();
        assert!(table.bytes() <= 9 * 100_000, "{} bytes", table.bytes());
        let middle = 3 * sampler.samples_per_epoch() + 123_456_789;
        let slots: Vec<Slot> = sampler.slots_from(middle).take(1000).collect();
        assert_eq!(slots[999], sampler.slot(middle + 999));
        let shards: BTreeSet<u64> = slots.iter().map(|slot| slot.sample_index / 10_000).collect();
        assert!((60..=64).contains(&shards.len()), "{}", shards.len());
    }

    #[test]
    fn impossible_ranks_and_windows_are_refused() {
        let sampler = Sampler::new(Seed(0), 100, 6).unwrap();
        let message = |rank, world_size| match sampler.slots_of_rank(0, rank, world_size) {
            Ok(_) => "no error".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            message(0, 4),
            "a batch of 6 samples cannot be split evenly over 4 ranks; choose a multiple of 4"
        );
        assert_eq!(message(2, 2), "rank 2 does not exist among 2 ranks, which count from 0");
        assert_eq!(message(0, 0), "rank 0 does not exist among 0 ranks, which count from 0");
        let error = Sampler::windowed(Seed(0), &[5, 5], 0, 2).unwrap_err();
        assert_eq!(error.to_string(), "a window must hold at least 1 shard, got 0");
        let error = Sampler::windowed(Seed(0), &[5, 5], 1, 20).unwrap_err();
        assert!(error.to_string().starts_with("a batch of 20 samples cannot be drawn from 10"));
    }
}
