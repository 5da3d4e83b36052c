//! Times of work on a device, and the middle of them.

use std::time::Instant;

/// Does `work` between two waits for the device; gives its result and the milliseconds.
pub(super) fn timed<T>(
    device: &candle_core::Device,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, f64)> {
    device.synchronize()?;
    let start = Instant::now();
    let result = work()?;
    device.synchronize()?;
    Ok((result, 1e3 * start.elapsed().as_secs_f64()))
}

/// The middle; the upper one of two.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (numbers, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 4.0)] {
            assert_eq!(median(&numbers), expected);
        }
        assert!(median(&[]).is_nan());
    }
}
