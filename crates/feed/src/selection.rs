//! Which images of a source an evaluation sees, and in which order.

use std::ops::Range;
use std::sync::Arc;

use moco_ingest::Source;
use moco_rng::{At, Permutation, Purpose, Seed};

/// Coordinates of the draws, so that one use of images says nothing about another.
const SORTED: At = At { epoch: 0, index: 0, view: 0 };
const MIXED: At = At { epoch: 0, index: 1, view: 0 };
const SHARDS: At = At { epoch: 0, index: 2, view: 0 };

/// The images of a source that an evaluation sees, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// In the order of the feed; `None` is every image, in the order of the source.
    drawn: Option<Arc<[u64]>>,
    n_images: u64,
}

impl Selection {
    /// Every image, in the order of the source.
    #[must_use]
    pub fn all(source: &dyn Source) -> Self {
        Self { drawn: None, n_images: source.len() }
    }

    /// `limit` images drawn from the whole source, in its order, so that reading is sequential; all of them
    /// if there are no more, or if `limit` is 0. A source that is sorted by class is met in all its classes.
    #[must_use]
    pub fn sorted(source: &dyn Source, limit: u64, seed: Seed) -> Self {
        let n_images = source.len();
        if limit == 0 || limit >= n_images {
            return Self::all(source);
        }
        let order = Permutation::new(seed.stream(Purpose::Subset, SORTED), n_images);
        let mut indices: Vec<u64> = (0..limit).map(|position| order.get(position)).collect();
        indices.sort_unstable();
        Self::of(indices)
    }

    /// At most `limit` images drawn from the whole source, in the order of the draw: for statistics of
    /// batches, which those of a source that is sorted by class would distort. Of a source that has room for
    /// only some of its shards, from as many shards, drawn as well.
    #[must_use]
    pub fn mixed(source: &dyn Source, limit: u64, seed: Seed) -> Self {
        let parts = parts(source, seed);
        let n_images = parts.iter().map(|part| part.end - part.start).sum();
        let order = Permutation::new(seed.stream(Purpose::Subset, MIXED), n_images);
        let positions = (0..limit.min(n_images)).map(|position| order.get(position));
        Self::of(positions.filter_map(|position| within(&parts, position)).collect())
    }

    fn of(indices: Vec<u64>) -> Self {
        Self { n_images: indices.len() as u64, drawn: Some(indices.into()) }
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.n_images
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_images == 0
    }

    /// The index of the image at a position; after the last position that of the last image.
    pub(crate) fn at(&self, position: u64) -> u64 {
        let position = position.min(self.n_images.saturating_sub(1));
        let Some(drawn) = &self.drawn else { return position };
        usize::try_from(position).ok().and_then(|at| drawn.get(at).copied()).unwrap_or(0)
    }
}

/// The samples that [`Selection::mixed`] draws from: all, or those of as many shards as the source holds at a
/// time.
fn parts(source: &dyn Source, seed: Seed) -> Vec<Range<u64>> {
    let sizes = source.shard_sizes();
    let room = source.max_window_shards().max(1);
    if room >= sizes.len() {
        return std::iter::once(0..source.len()).collect();
    }
    let mut start = 0;
    let mut shards = Vec::new();
    for size in sizes {
        shards.push(start..start + size);
        start += size;
    }
    let order = Permutation::new(seed.stream(Purpose::Subset, SHARDS), shards.len() as u64);
    let drawn = (0..room as u64).filter_map(|at| usize::try_from(order.get(at)).ok());
    drawn.filter_map(|shard_idx| shards.get(shard_idx).cloned()).collect()
}

/// The index of the sample at a position of these parts, one after the other.
fn within(parts: &[Range<u64>], position: u64) -> Option<u64> {
    let mut before = 0;
    for part in parts {
        let len = part.end - part.start;
        if position - before < len {
            return Some(part.start + (position - before));
        }
        before += len;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use moco_ingest::{EncodedSample, IngestError};

    use super::*;

    /// Sorted by class, `per_class` images each; `room` shards of one class each have room.
    struct Sorted {
        n_classes: u64,
        per_class: u64,
        room: usize,
    }

    impl Source for Sorted {
        fn len(&self) -> u64 {
            self.n_classes * self.per_class
        }

        fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
            Err(IngestError::SampleIndex { sample_index, n_samples: self.len() })
        }

        fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
            Ok(u32::try_from(sample_index / self.per_class).ok())
        }

        fn n_classes(&self) -> Option<u32> {
            u32::try_from(self.n_classes).ok()
        }

        fn shard_sizes(&self) -> Vec<u64> {
            vec![self.per_class; usize::try_from(self.n_classes).unwrap()]
        }

        fn max_window_shards(&self) -> usize {
            self.room
        }
    }

    fn indices(selection: &Selection) -> Vec<u64> {
        (0..selection.len()).map(|position| selection.at(position)).collect()
    }

    fn n_classes(source: &Sorted, selection: &Selection) -> usize {
        let labels = indices(selection).into_iter().map(|index| source.label(index).unwrap());
        labels.collect::<BTreeSet<_>>().len()
    }

    /// Of 100 classes of 30 images, a draw of n misses each with the hypergeometric probability
    /// C(2970, n) / C(3000, n): of n = 600 the expected number of missed classes is 0.12, of n = 60 it is 54.4.
    #[test]
    fn a_draw_from_a_sorted_source_meets_its_classes_as_chance_says() {
        let source = Sorted { n_classes: 100, per_class: 30, room: usize::MAX };
        for draw in [Selection::sorted, Selection::mixed] {
            let missed = |limit| -> f64 {
                let of_seed = |seed| 100 - n_classes(&source, &draw(&source, limit, Seed(seed)));
                (0..40).map(of_seed).sum::<usize>() as f64 / 40.0
            };
            assert!(missed(600) < 0.5, "{}", missed(600));
            // The standard deviation of the mean of 40 draws is below 0.7.
            assert!((missed(60) - 54.4).abs() < 3.0, "{}", missed(60));
        }
    }

    #[test]
    fn a_draw_has_no_image_twice_and_depends_on_the_seed_only() {
        let source = Sorted { n_classes: 10, per_class: 30, room: usize::MAX };
        let sorted = |seed| indices(&Selection::sorted(&source, 45, Seed(seed)));
        let mixed = |seed| indices(&Selection::mixed(&source, 45, Seed(seed)));
        assert!(sorted(1).is_sorted() && sorted(1).len() == 45);
        assert_eq!(mixed(1).iter().collect::<BTreeSet<_>>().len(), 45);
        assert!(!mixed(1).is_sorted(), "{:?}", mixed(1));
        assert_eq!((sorted(1), mixed(1)), (sorted(1), mixed(1)));
        assert!(sorted(1) != sorted(2) && mixed(1) != mixed(2));
        let as_set = |indices: Vec<u64>| indices.into_iter().collect::<BTreeSet<_>>();
        assert_ne!(as_set(sorted(1)), as_set(mixed(1)), "each use has its own draw");
    }

    #[test]
    fn a_limit_that_is_no_limit_gives_every_image_in_order() {
        let source = Sorted { n_classes: 4, per_class: 5, room: usize::MAX };
        let all: Vec<u64> = (0..20).collect();
        for limit in [0, 20, 21] {
            assert_eq!(indices(&Selection::sorted(&source, limit, Seed(3))), all);
        }
        assert_eq!(indices(&Selection::all(&source)), all);
        assert_eq!(Selection::all(&source).at(99), 19);
        let mut mixed = indices(&Selection::mixed(&source, 99, Seed(3)));
        mixed.sort_unstable();
        assert_eq!(mixed, all);
    }

    #[test]
    fn a_source_with_room_for_few_shards_is_drawn_from_few() {
        let source = Sorted { n_classes: 50, per_class: 100, room: 3 };
        let shards = |seed| -> BTreeSet<u64> {
            let drawn = indices(&Selection::mixed(&source, 200, Seed(seed)));
            assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 200);
            drawn.into_iter().map(|index| index / 100).collect()
        };
        assert_eq!(shards(1).len(), 3);
        assert_ne!(shards(1), shards(2));
        assert_ne!(shards(1), BTreeSet::from([0, 1, 2]));
    }
}
