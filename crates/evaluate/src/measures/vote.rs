//! The nearest neighbors of a query and their weighted vote.

use std::cmp::Ordering;

/// The indices of the `k` highest similarities, highest first; the lower index wins a tie. Fewer than
/// `k` similarities give all of them, and one that is not a number comes after every number.
///
/// Takes O(n + k log k) time.
#[must_use]
pub fn nearest(similarities: &[f32], k: usize) -> Vec<usize> {
    let order =
        |a: &usize, b: &usize| descending(similarities[*a], similarities[*b]).then(a.cmp(b));
    let mut indices: Vec<usize> = (0..similarities.len()).collect();
    if k < indices.len() {
        indices.select_nth_unstable_by(k, order);
        indices.truncate(k);
    }
    indices.sort_unstable_by(order);
    indices
}

/// The order of similarities: the highest first, and what is no number last.
pub(crate) fn descending(a: f32, b: f32) -> Ordering {
    let by_value = b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(by_value)
}

/// The class with the highest sum of exp(similarity / temperature) over its members among the
/// neighbors (similarity, label); the lowest class wins a tie, and without neighbors class 0.
///
/// Labels must be less than `n_classes`. A similarity that is not a number has no vote.
///
/// Instance Discrimination (arXiv:1805.01978) §3.4; the CIFAR-10 notebook of the official code uses it
/// with k = 200 and temperature 0.1.
#[must_use]
pub fn knn_vote(similarities_of_nearest: &[(f32, u32)], n_classes: usize, temperature: f64) -> u32 {
    debug_assert!(temperature > 0.0, "a temperature of {temperature}");
    let highest = similarities_of_nearest.iter().map(|(s, _)| *s).fold(f32::NEG_INFINITY, f32::max);
    let mut weights = vec![0.0_f64; n_classes];
    for (similarity, label) in similarities_of_nearest {
        debug_assert!((*label as usize) < n_classes, "label {label} of {n_classes} classes");
        // A common factor changes no winner; this one keeps every exponential finite.
        let weight = (f64::from(similarity - highest) / temperature).exp();
        if let Some(sum) = weights.get_mut(*label as usize).filter(|_| !similarity.is_nan()) {
            *sum += weight;
        }
    }
    let mut winner = (0, 0.0);
    for (class, weight) in (0..).zip(weights) {
        if weight > winner.1 {
            winner = (class, weight);
        }
    }
    winner.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nearest_breaks_ties_by_index_and_puts_nan_last() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for (similarities, k, expected) in [
            (&[0.1_f32, 0.9, 0.5, 0.9][..], 3, &[1_usize, 3, 2][..]),
            (&[0.1, 0.9, 0.5, 0.9], 1, &[1]),
            (&[0.1, 0.9, 0.5, 0.9], 0, &[]),
            (&[0.1, 0.9], 9, &[1, 0]),
            (&[], 2, &[]),
            (&[0.0, -0.0, 0.0], 2, &[0, 1]),
            (&[nan, -1.0, nan, -inf], 4, &[1, 3, 0, 2]),
            (&[-nan, 1.0, nan], 1, &[1]),
            (&[inf, 1.0, inf], 2, &[0, 2]),
        ] {
            assert_eq!(nearest(similarities, k), expected, "{k} of {similarities:?}");
        }
    }

    proptest! {
        #[test]
        fn nearest_is_the_head_of_a_stable_sort(
            // Few values, so that ties are common.
            values in proptest::collection::vec(-5_i8..5, 0..60),
            k in 0_usize..70,
        ) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
            order.truncate(k);
            prop_assert_eq!(nearest(&values, k), order);
        }

        #[test]
        fn the_vote_is_the_highest_sum_of_exponentials(
            neighbors in proptest::collection::vec((-1.0_f32..1.0, 0_u32..5), 1..40),
            temperature in 0.05_f64..2.0,
        ) {
            let sum = |class: u32| -> f64 {
                let members = neighbors.iter().filter(|(_, label)| *label == class);
                members.map(|(s, _)| (f64::from(*s) / temperature).exp()).sum()
            };
            let winner = knn_vote(&neighbors, 5, temperature);
            // The shifted sums differ from these by rounding, which may swap equal ones.
            prop_assert!((0..5).all(|class| sum(class) <= sum(winner) * (1.0 + 1e-6)));
        }
    }

    #[test]
    fn the_temperature_decides_between_one_close_and_many_far() {
        // exp(0.9/τ) against 3 exp(0.5/τ): equal at τ = 0.4 / ln 3 = 0.3641.
        let neighbors = [(0.9, 4), (0.5, 2), (0.5, 2), (0.5, 2)];
        for (temperature, expected) in [(0.1, 4), (0.36, 4), (0.37, 2), (1.0, 2)] {
            assert_eq!(knn_vote(&neighbors, 6, temperature), expected, "τ = {temperature}");
        }
    }

    #[test]
    fn ties_and_extremes() {
        let nan = f32::NAN;
        for (neighbors, expected) in [
            (&[(0.5_f32, 3_u32), (0.5, 1)][..], 1),
            (&[(0.5, 3), (0.4, 1), (0.5, 1), (0.4, 3)], 1),
            (&[], 0),
            (&[(-1.0, 2)], 2),
            // Neither overflows nor vanishes: exp(±1e5).
            (&[(1e4, 2), (9e3, 0), (9e3, 0)], 2),
            (&[(-1e4, 2)], 2),
            (&[(nan, 3), (0.1, 2)], 2),
            (&[(nan, 3)], 0),
        ] {
            assert_eq!(knn_vote(neighbors, 4, 0.1), expected, "{neighbors:?}");
        }
    }
}
