//! The weighted kNN vote.

use super::blocks::{block_rows, ranges};
use super::{FeatureSet, count};
use crate::error::{During, EvaluateError};
use crate::measures::{descending, knn_vote, nearest};
use crate::progress::Progress;

/// Test features whose similarities to a block of the bank exist at a time.
const CHUNK: usize = 256;

/// Neighbors of test features that are held while blocks of the bank pass.
const HELD: usize = 1 << 24;

/// Settings of the vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnnConfig {
    /// Neighbors that vote; 200 in the authors' CIFAR notebook.
    pub n_neighbors: usize,
    /// τ of the weights exp(cosine/τ); 0.1 there.
    pub temperature: f64,
}

/// Accuracy in percent of the vote of each test feature's nearest training features by cosine
/// (Wu et al. 2018; the authors' CIFAR notebook). Features are L2-normalized here. Of the bank, one block at a
/// time is held in addition to the features; `progress` counts test features times blocks.
///
/// # Errors
/// If the widths differ or there is nothing to vote on.
pub fn knn_accuracy(
    train: &FeatureSet,
    test: &FeatureSet,
    config: KnnConfig,
    progress: Progress<'_>,
) -> Result<f64, EvaluateError> {
    let block_rows = block_rows(train.dim());
    in_blocks(train, test, config, block_rows, progress)
}

/// [`knn_accuracy`] with so many rows of the bank at a time.
fn in_blocks(
    train: &FeatureSet,
    test: &FeatureSet,
    config: KnnConfig,
    block_rows: usize,
    progress: Progress<'_>,
) -> Result<f64, EvaluateError> {
    if train.dim() != test.dim() {
        let (expected, got) = (train.dim(), test.dim());
        return Err(EvaluateError::Mismatch { what: "width of test features", expected, got });
    }
    for (what, set) in [("training features", train), ("test features", test)] {
        if set.is_empty() {
            return Err(EvaluateError::Mismatch { what, expected: 1, got: 0 });
        }
    }
    let blocks: Vec<_> = ranges(0..train.len(), block_rows).collect();
    let k = config.n_neighbors.min(train.len());
    let total = (blocks.len() * test.len()) as u64;
    let n_classes = train.n_classes();
    let (mut correct, mut done) = (0_usize, 0);
    for queries in ranges(0..test.len(), (HELD / k.max(1)).max(1)) {
        let mut neighbors: Vec<Vec<(f32, u32)>> = vec![Vec::new(); queries.len()];
        for block in &blocks {
            let bank = moco_ops::l2_normalize(&train.tensor(block.clone())?)?;
            let bank = bank.t().during("kNN bank")?;
            for chunk in ranges(queries.clone(), CHUNK) {
                let q = moco_ops::l2_normalize(&test.tensor(chunk.clone())?)?;
                let similarities = q.matmul(&bank).and_then(|s| s.to_vec2::<f32>());
                let of_chunk = neighbors[chunk.start - queries.start..].iter_mut();
                let labels = &train.labels()[block.clone()];
                for (row, held) in similarities.during("kNN similarities")?.iter().zip(of_chunk) {
                    let new = nearest(row, k).into_iter().map(|i| (row[i], labels[i]));
                    merge(held, new, k);
                }
                done += chunk.len() as u64;
                progress(done, total);
            }
        }
        for (votes, label) in neighbors.iter().zip(&test.labels()[queries]) {
            let vote = knn_vote(votes, n_classes, config.temperature);
            correct += usize::from(vote == *label);
        }
    }
    Ok(100.0 * count(correct) / count(test.len()))
}

/// Keeps the `k` nearest of those held and of `new` ones, which come later in the bank; among equal
/// similarities the earlier one wins.
fn merge(held: &mut Vec<(f32, u32)>, new: impl Iterator<Item = (f32, u32)>, k: usize) {
    let is_first = held.is_empty();
    held.extend(new);
    if !is_first {
        held.sort_by(|(a, _), (b, _)| descending(*a, *b));
        held.truncate(k);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: KnnConfig = KnnConfig { n_neighbors: 1, temperature: 0.1 };

    fn accuracy(train: &FeatureSet, test: &FeatureSet, config: KnnConfig) -> f64 {
        knn_accuracy(train, test, config, &mut |_, _| ()).unwrap()
    }

    proptest! {
        /// Blocks one after the other hold what a sort of the whole bank gives.
        #[test]
        fn blocks_hold_the_nearest_of_the_whole_bank(
            // Few values, so that ties are common.
            values in proptest::collection::vec(-4_i8..4, 1..60),
            at_a_time in 1_usize..20,
            k in 1_usize..30,
        ) {
            let row: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut held = Vec::new();
            for block in ranges(0..row.len(), at_a_time) {
                let part = &row[block.clone()];
                let new = nearest(part, k).into_iter();
                merge(&mut held, new.map(|i| (part[i], (block.start + i) as u32)), k);
            }
            let expected: Vec<(f32, u32)> =
                nearest(&row, k).into_iter().map(|i| (row[i], i as u32)).collect();
            prop_assert_eq!(held, expected);
        }
    }

    #[test]
    fn a_bank_in_blocks_votes_as_the_whole() {
        let features = |n: u32, seed: u32| {
            let angle = |i: u32| f64::from(i * seed % 997);
            let numbers = (0..n).flat_map(|i| [angle(i).cos() as f32, angle(i).sin() as f32]);
            FeatureSet::new(2, numbers.collect(), (0..n).map(|i| i % 3).collect()).unwrap()
        };
        let (train, test) = (features(300, 61), features(30, 83));
        let config = KnnConfig { n_neighbors: 20, temperature: 0.1 };
        let whole = accuracy(&train, &test, config);
        assert!(whole > 0.0 && whole < 100.0, "{whole}");
        for block_rows in [1, 7, 299] {
            let mut reports = Vec::new();
            let mut progress = |done, total| reports.push((done, total));
            let got = in_blocks(&train, &test, config, block_rows, &mut progress).unwrap();
            assert_eq!(got, whole, "{block_rows}");
            let total = 30 * 300_u64.div_ceil(block_rows as u64);
            assert_eq!(reports.last(), Some(&(total, total)));
        }
    }

    #[test]
    fn the_nearest_direction_wins_whatever_its_length() {
        let train =
            FeatureSet::new(2, vec![100.0, 1.0, 0.1, 0.2, -3.0, 0.0], vec![0, 1, 2]).unwrap();
        let test = FeatureSet::new(2, vec![0.01, 0.0, 1.0, 2.0, -1.0, 0.1], vec![0, 1, 0]).unwrap();
        let accuracy = accuracy(&train, &test, ONE);
        assert!((accuracy - 200.0 / 3.0).abs() < 1e-9, "{accuracy}");
    }

    #[test]
    fn many_far_neighbors_outvote_a_close_one_only_at_a_high_temperature() {
        let mut numbers = vec![1.0, 0.0];
        numbers.extend([0.8, 0.6].repeat(4));
        let train = FeatureSet::new(2, numbers, vec![0, 1, 1, 1, 1]).unwrap();
        let test = FeatureSet::new(2, vec![1.0, 0.0], vec![0]).unwrap();
        let at = |temperature| accuracy(&train, &test, KnnConfig { n_neighbors: 5, temperature });
        // exp(0.2/τ) against 4 votes.
        assert!((at(0.1) - 100.0).abs() < 1e-9 && at(0.5) < 1e-9);
    }

    #[test]
    fn bad_input_is_named() {
        let two = FeatureSet::new(2, vec![1.0, 0.0], vec![0]).unwrap();
        let one = FeatureSet::new(1, vec![1.0], vec![0]).unwrap();
        let none = FeatureSet::new(2, vec![], vec![]).unwrap();
        let message = |a, b| knn_accuracy(a, b, ONE, &mut |_, _| ()).unwrap_err().to_string();
        assert_eq!(message(&two, &one), "width of test features: expected 2, got 1");
        assert_eq!(message(&none, &two), "training features: expected 1, got 0");
    }
}
