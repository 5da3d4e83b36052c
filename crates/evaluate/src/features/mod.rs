//! Labeled features as plain numbers, and what is measured on them.

mod knn;
mod linear;

use candle_core::{Device, Tensor};

use crate::error::{During, EvaluateError};

pub use knn::{KnnConfig, knn_accuracy};
pub use linear::{LinearConfig, LinearProbe, linear_accuracy, train_linear};

/// Features of labeled images, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureSet {
    dim: usize,
    numbers: Vec<f32>,
    labels: Vec<u32>,
}

impl FeatureSet {
    /// `numbers` are `labels.len()` rows of `dim`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn new(dim: usize, numbers: Vec<f32>, labels: Vec<u32>) -> Result<Self, EvaluateError> {
        let rows = labels.len();
        if rows * dim != numbers.len() {
            return Err(EvaluateError::Size { rows, dim, got: numbers.len() });
        }
        Ok(Self { dim, numbers, labels })
    }

    /// Width of a feature.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The rows, one after the other.
    #[must_use]
    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One more than the largest label.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |label| *label as usize + 1)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.dim)
    }

    /// `[len, dim]`.
    pub(crate) fn tensor(&self) -> Result<Tensor, EvaluateError> {
        let dims = (self.len(), self.dim);
        Tensor::from_vec(self.numbers.clone(), dims, &Device::Cpu).during("features")
    }

    /// The features with the columns' mean and standard deviation of `reference` taken out; constant
    /// columns become 0.
    #[must_use]
    pub fn standardized_by(&self, reference: &Self) -> Self {
        let n = count(reference.len().max(1));
        let mut mean = vec![0.0_f64; self.dim];
        let mut square = vec![0.0_f64; self.dim];
        for row in reference.rows() {
            for (mean, x) in mean.iter_mut().zip(row) {
                *mean += f64::from(*x) / n;
            }
        }
        for row in reference.rows() {
            for ((square, mean), x) in square.iter_mut().zip(&mean).zip(row) {
                *square += (f64::from(*x) - mean).powi(2) / n;
            }
        }
        let scale: Vec<f64> =
            square.iter().map(|v| if *v > 1e-16 { 1.0 / v.sqrt() } else { 0.0 }).collect();
        let of_row = |row: &[f32]| -> Vec<f32> {
            let columns = row.iter().zip(mean.iter().zip(&scale));
            #[expect(clippy::cast_possible_truncation, reason = "features are f32")]
            columns.map(|(x, (mean, scale))| ((f64::from(*x) - mean) * scale) as f32).collect()
        };
        let numbers = self.rows().flat_map(of_row).collect();
        Self { dim: self.dim, numbers, labels: self.labels.clone() }
    }
}

#[expect(clippy::cast_precision_loss, reason = "data sets are far below 2^53")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let message = FeatureSet::new(3, vec![0.0; 5], vec![0, 1]).unwrap_err().to_string();
        assert_eq!(message, "2 labels of 3 numbers each need 6 numbers, got 5");
    }

    #[test]
    fn standardizing_uses_the_references_moments() {
        let train = FeatureSet::new(2, vec![1.0, 5.0, 3.0, 5.0], vec![0, 1]).unwrap();
        let test = FeatureSet::new(2, vec![4.0, 6.0], vec![0]).unwrap();
        assert_eq!(train.standardized_by(&train).numbers(), [-1.0, 0.0, 1.0, 0.0]);
        assert_eq!(test.standardized_by(&train).numbers(), [2.0, 0.0]);
    }
}
