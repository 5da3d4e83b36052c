//! Columns of mean 0 and standard deviation 1, taken a few rows at a time.

use super::{FeatureSet, count};

/// The columns' means and standard deviations of a reference, which are taken out of other rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standardization {
    mean: Vec<f64>,
    /// One over the standard deviation; 0 for a constant column.
    scale: Vec<f64>,
}

impl Standardization {
    pub(crate) fn of(reference: &FeatureSet) -> Self {
        let n = count(reference.len().max(1));
        let mut mean = vec![0.0_f64; reference.dim()];
        let mut square = vec![0.0_f64; reference.dim()];
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
        let scale = square.iter().map(|v| if *v > 1e-16 { 1.0 / v.sqrt() } else { 0.0 }).collect();
        Self { mean, scale }
    }

    /// Width of the rows.
    pub(crate) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// These rows of `set`, standardized, one after the other.
    pub(crate) fn rows(&self, set: &FeatureSet, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        let mut numbers = Vec::new();
        for row in rows {
            let columns = set.row(row).iter().zip(self.mean.iter().zip(&self.scale));
            #[expect(clippy::cast_possible_truncation, reason = "features are f32")]
            numbers
                .extend(columns.map(|(x, (mean, scale))| ((f64::from(*x) - mean) * scale) as f32));
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_references_moments_are_taken_out() {
        let train = FeatureSet::new(2, vec![1.0, 5.0, 3.0, 5.0], vec![0, 1]).unwrap();
        let test = FeatureSet::new(2, vec![4.0, 6.0], vec![0]).unwrap();
        let standardization = Standardization::of(&train);
        assert_eq!(standardization.rows(&train, 0..2), [-1.0, 0.0, 1.0, 0.0]);
        assert_eq!(standardization.rows(&train, [1].into_iter()), [1.0, 0.0]);
        assert_eq!(standardization.rows(&test, 0..1), [2.0, 0.0]);
    }
}
