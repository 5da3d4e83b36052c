//! The weighted kNN vote.

use super::{FeatureSet, count};
use crate::error::{During, EvaluateError};
use crate::measures::{knn_vote, nearest};

/// Test features whose similarities to the whole bank exist at a time.
const CHUNK: usize = 256;

/// Settings of the vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnnConfig {
    /// Neighbors that vote; 200 in the authors' CIFAR notebook.
    pub n_neighbors: usize,
    /// τ of the weights exp(cosine/τ); 0.1 there.
    pub temperature: f64,
}

/// Accuracy in percent of the vote of each test feature's nearest training features by cosine
/// (Wu et al. 2018; the authors' CIFAR notebook). Features are L2-normalized here.
///
/// # Errors
/// If the widths differ or there is nothing to vote on.
pub fn knn_accuracy(
    train: &FeatureSet,
    test: &FeatureSet,
    config: KnnConfig,
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
    let n_classes = train.n_classes();
    let bank = moco_ops::l2_normalize(&train.tensor()?)?.t().during("kNN bank")?;
    let queries = moco_ops::l2_normalize(&test.tensor()?)?;
    let mut correct = 0_usize;
    for start in (0..test.len()).step_by(CHUNK) {
        let len = CHUNK.min(test.len() - start);
        let chunk = queries.narrow(0, start, len).and_then(|q| q.matmul(&bank));
        let rows = chunk.and_then(|s| s.to_vec2::<f32>()).during("kNN similarities")?;
        for (similarities, label) in rows.iter().zip(&test.labels()[start..]) {
            let votes: Vec<(f32, u32)> = nearest(similarities, config.n_neighbors)
                .into_iter()
                .map(|i| (similarities[i], train.labels()[i]))
                .collect();
            correct += usize::from(knn_vote(&votes, n_classes, config.temperature) == *label);
        }
    }
    Ok(100.0 * count(correct) / count(test.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: KnnConfig = KnnConfig { n_neighbors: 1, temperature: 0.1 };

    #[test]
    fn the_nearest_direction_wins_whatever_its_length() {
        let train =
            FeatureSet::new(2, vec![100.0, 1.0, 0.1, 0.2, -3.0, 0.0], vec![0, 1, 2]).unwrap();
        let test = FeatureSet::new(2, vec![0.01, 0.0, 1.0, 2.0, -1.0, 0.1], vec![0, 1, 0]).unwrap();
        let accuracy = knn_accuracy(&train, &test, ONE).unwrap();
        assert!((accuracy - 200.0 / 3.0).abs() < 1e-9, "{accuracy}");
    }

    #[test]
    fn many_far_neighbors_outvote_a_close_one_only_at_a_high_temperature() {
        let mut numbers = vec![1.0, 0.0];
        numbers.extend([0.8, 0.6].repeat(4));
        let train = FeatureSet::new(2, numbers, vec![0, 1, 1, 1, 1]).unwrap();
        let test = FeatureSet::new(2, vec![1.0, 0.0], vec![0]).unwrap();
        let at = |temperature| {
            knn_accuracy(&train, &test, KnnConfig { n_neighbors: 5, temperature }).unwrap()
        };
        // exp(0.2/τ) against 4 votes.
        assert!((at(0.1) - 100.0).abs() < 1e-9 && at(0.5) < 1e-9);
    }

    #[test]
    fn bad_input_is_named() {
        let two = FeatureSet::new(2, vec![1.0, 0.0], vec![0]).unwrap();
        let one = FeatureSet::new(1, vec![1.0], vec![0]).unwrap();
        let none = FeatureSet::new(2, vec![], vec![]).unwrap();
        let message = |a, b| knn_accuracy(a, b, ONE).unwrap_err().to_string();
        assert_eq!(message(&two, &one), "width of test features: expected 2, got 1");
        assert_eq!(message(&none, &two), "training features: expected 1, got 0");
    }
}
