//! Bounds of the loss from first principles: chance, random keys, and the floor.
//!
//! Random keys are unit vectors drawn evenly from the sphere in `dim` dimensions: the cosine of two of them is
//! cos θ where θ has a density proportional to sin^(dim − 2) θ.

use std::f64::consts::PI;

/// Angles of the integral over the sphere.
const N_ANGLES: usize = 2000;
/// Levels of the integral over the distribution of a sum.
const N_LEVELS: usize = 400;
/// Euler's constant γ, the mean of the Gumbel distribution.
const EULER: f64 = 0.577_215_664_901_532_9;

/// The loss when all logits are equal, as those of a collapsed encoder are: ln(K + 1).
#[must_use]
pub fn chance_loss(queue_size: usize) -> f64 {
    count(queue_size + 1).ln()
}

/// The loss of an encoder whose features are random, positives included: E ln Σ exp(cos/τ) over K + 1 random
/// keys, since the positive's own logit is 0 in the mean. It is about chance + 1/(2·dim·τ²) for large τ, and
/// grows as 1/τ where τ is so small that a single key outweighs all others.
#[must_use]
pub fn random_loss(queue_size: usize, dim: usize, temperature: f64) -> f64 {
    expected_log_sum(queue_size + 1, dim, temperature, None)
}

/// The loss when query and positive agree fully and the K negatives are spread evenly over the sphere:
/// E ln(1 + Σ exp((cos − 1)/τ)) over K random keys. A good run cannot go far below it; 6.19 for v2 on ImageNet.
#[must_use]
pub fn floor_loss(queue_size: usize, dim: usize, temperature: f64) -> f64 {
    // Rounding could leave a little less than nothing.
    (expected_log_sum(queue_size, dim, temperature, Some(1.0)) - 1.0 / temperature).max(0.0)
}

/// E ln Z for Z = Σ exp(cos/τ) over `n_keys` random keys and one key of a given cosine, if there is one.
///
/// With a Gumbel variable G independent of Z, P(ln Z + G < u) = E exp(−Z·e^(−u)), and the mean of G is γ. Keys
/// are independent, so that probability is a power of an integral over the sphere, and E ln Z is the mean of this
/// distribution less γ. Unlike ln E Z it holds for any τ: for a small one E Z is that of keys too rare to occur.
fn expected_log_sum(n_keys: usize, dim: usize, temperature: f64, other: Option<f64>) -> f64 {
    let keys = angles(dim);
    let below = |u: f64| {
        let of_key: f64 =
            keys.iter().map(|(cos, share)| share * (-(cos / temperature - u).exp()).exp_m1()).sum();
        let of_other = other.map_or(0.0, |cos| -(cos / temperature - u).exp());
        // ln_1p keeps the digits of a probability close to 1, which is raised to the power of K.
        (count(n_keys) * of_key.max(-1.0).ln_1p() + of_other).exp()
    };
    let most = 1.0 / temperature + count(n_keys + 1).ln() + 40.0;
    let least = -1.0 / temperature - 10.0;
    let crossing = |probability: f64| {
        let (mut low, mut high) = (least, most);
        for _ in 0..80 {
            let middle = f64::midpoint(low, high);
            if below(middle) < probability { low = middle } else { high = middle }
        }
        high
    };
    // The mean of a distribution on [low, high] is high − ∫ P(below u) du.
    let (low, high) = (crossing(1e-9), crossing(1.0 - 1e-9));
    let width = (high - low) / count(N_LEVELS);
    let levels = (0..N_LEVELS).map(|i| below(low + (count(i) + 0.5) * width));
    high - levels.sum::<f64>() * width - EULER
}

/// Cosines of random keys with their shares; in one dimension there are only two keys.
fn angles(dim: usize) -> Vec<(f64, f64)> {
    if dim < 2 {
        return vec![(1.0, 0.5), (-1.0, 0.5)];
    }
    let angle = |i: usize| (count(i) + 0.5) * PI / count(N_ANGLES);
    let weight = |i: usize| (count(dim - 2) * angle(i).sin().ln()).exp();
    let total: f64 = (0..N_ANGLES).map(weight).sum();
    (0..N_ANGLES).map(|i| (angle(i).cos(), weight(i) / total)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "queue sizes stay far below 2^53")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use moco_rng::{At, Purpose, Seed};

    use super::*;

    /// Numbers computed from ln K + 1/(2·dim·τ²), which holds in the papers' settings.
    #[test]
    fn in_the_papers_settings_the_bounds_are_the_known_ones() {
        assert!((chance_loss(65_536) - 11.0904).abs() < 1e-4);
        assert!((chance_loss(4_096) - 8.3180).abs() < 1e-4);
        for (queue_size, temperature, random, floor) in [
            (65_536, 0.2, 11.188, 6.190),
            (65_536, 0.07, 11.884, 0.087),
            (4_096, 0.1, 8.707, 0.243),
        ] {
            let got = random_loss(queue_size, 128, temperature);
            assert!((got - random).abs() < 2e-3, "K {queue_size}, τ {temperature}: random {got}");
            let got = floor_loss(queue_size, 128, temperature);
            assert!((got - floor).abs() < 1e-3, "K {queue_size}, τ {temperature}: floor {got}");
        }
    }

    /// One random key in three dimensions has a cosine that is even in [−1, 1], and mean ln exp(cos/τ) is 0; two
    /// keys in one dimension are all cases by hand.
    #[test]
    fn few_keys_are_computed_by_hand() {
        for temperature in [0.002, 0.2, 5.0] {
            assert!(expected_log_sum(1, 3, temperature, None).abs() < 2e-3 / temperature);
        }
        let two = (2.0_f64).ln() * 0.5 + ((5.0_f64).exp() + (-5.0_f64).exp()).ln() * 0.5;
        assert!((expected_log_sum(2, 1, 0.2, None) - two).abs() < 1e-3);
        // Nothing is lost by one key in three dimensions at τ = 1: the mean of ln(1 + e^(c − 1)) over c.
        let steps = 10_000;
        let mean = |i: usize| {
            let cos = 2.0 * (count(i) + 0.5) / count(steps) - 1.0;
            (cos - 1.0).exp().ln_1p()
        };
        let expected = (0..steps).map(mean).sum::<f64>() / count(steps);
        assert!((floor_loss(1, 3, 1.0) - expected).abs() < 1e-4);
    }

    /// The mean over drawn queues, also where a single key outweighs all others.
    #[test]
    fn drawn_keys_have_the_expected_losses() {
        let (n_queues, n_negatives, dim) = (400_u64, 64_usize, 16_usize);
        for temperature in [0.002, 0.02, 0.07, 0.2, 1.0] {
            let (mut random, mut floor) = (0.0, 0.0);
            for queue in 0..n_queues {
                let mut stream = Seed(5).stream(Purpose::Queue, At::index(queue));
                let mut cosine = || {
                    let key: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
                    key[0] / key.iter().map(|x| x * x).sum::<f64>().sqrt()
                };
                let logits: Vec<f64> = (0..=n_negatives).map(|_| cosine() / temperature).collect();
                let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum = |logits: &[f64]| logits.iter().map(|x| (x - most).exp()).sum::<f64>();
                random += (sum(&logits).ln() + most) / n_queues as f64;
                let negatives = sum(&logits[1..]).ln() + most;
                floor += (negatives - 1.0 / temperature).exp().ln_1p() / n_queues as f64;
            }
            let got = random_loss(n_negatives, dim, temperature);
            // The standard error is that of the largest cosine, about 0.1, over 20 = √400.
            let error = 0.02 / temperature + 0.01;
            assert!((got - random).abs() < error, "τ {temperature}: {got}, drawn {random}");
            let got = floor_loss(n_negatives, dim, temperature);
            assert!((got - floor).abs() < 0.02, "τ {temperature}: floor {got}, drawn {floor}");
        }
    }

    #[test]
    fn the_floor_of_a_small_temperature_is_zero_and_of_a_large_one_is_chance() {
        assert!(floor_loss(1024, 128, 0.002) < 1e-6);
        assert!(random_loss(1024, 128, 0.002) > 100.0);
        for temperature in [0.002, 0.02, 0.2, 2.0, 20.0] {
            let [floor, random] =
                [floor_loss, random_loss].map(|bound| bound(1024, 128, temperature));
            assert!(floor < chance_loss(1024) && chance_loss(1024) < random, "τ {temperature}");
        }
        assert!(chance_loss(1024) - floor_loss(1024, 128, 20.0) < 0.06);
    }
}
