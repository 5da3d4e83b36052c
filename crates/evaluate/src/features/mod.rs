//! Labeled features as plain numbers, and what is measured on them.

mod blocks;
mod knn;
mod linear;
mod standardization;

use std::ops::Range;

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

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.numbers[row * self.dim..(row + 1) * self.dim]
    }

    /// These rows, `[rows.len(), dim]`.
    pub(crate) fn tensor(&self, rows: Range<usize>) -> Result<Tensor, EvaluateError> {
        let numbers = &self.numbers[rows.start * self.dim..rows.end * self.dim];
        Tensor::from_slice(numbers, (rows.len(), self.dim), &Device::Cpu).during("features")
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
}
