//! The mean of several trials and how far they lie apart.

/// Mean and standard deviation of a few results, such as the accuracies of several seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (n − 1 in the denominator); none for a single value, whose spread
    /// is unknown rather than zero.
    pub std: Option<f64>,
}

/// Mean and sample standard deviation; none without values.
#[must_use]
pub fn mean_and_std(values: &[f64]) -> Option<Spread> {
    if values.is_empty() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "2^53 values do not fit into memory")]
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    // Two passes: the difference of two large sums would lose the digits.
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(Spread { mean, std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        for (values, mean, std) in [
            (&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0][..], 5.0, Some((32.0_f64 / 7.0).sqrt())),
            (&[1.0, 3.0], 2.0, Some(2.0_f64.sqrt())),
            (&[7.0, 7.0, 7.0], 7.0, Some(0.0)),
            (&[61.5], 61.5, None),
            // The integers 0..=10 have variance n(n + 1)/12 with n = 11; a shift changes nothing.
            (&[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10.], 5.0, Some(11.0_f64.sqrt())),
            (&[1e9, 1e9 + 1.0, 1e9 + 2.0], 1e9 + 1.0, Some(1.0)),
        ] {
            let got = mean_and_std(values).unwrap();
            assert!((got.mean - mean).abs() < 1e-12 * mean.abs(), "{values:?}: {got:?}");
            assert_eq!(got.std.is_some(), std.is_some(), "{values:?}: {got:?}");
            let difference = got.std.unwrap_or_default() - std.unwrap_or_default();
            assert!(difference.abs() < 1e-12, "{values:?}: {got:?}");
        }
        assert_eq!(mean_and_std(&[]), None);
    }
}
