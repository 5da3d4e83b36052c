//! Top-k accuracy.

use std::cmp::Ordering;

/// Whether `label` is among the `k` highest scores.
///
/// The rule for ties is pessimistic: another class with the same score counts as higher, so a model
/// that scores all classes alike is right only if `k` is their number. A score that is not a number
/// counts as higher too, and a label without a score is never correct.
#[must_use]
pub fn top_k_correct(scores: &[f32], label: usize, k: usize) -> bool {
    let Some(own) = scores.get(label) else { return false };
    let is_lower = |other: &f32| other.partial_cmp(own) == Some(Ordering::Less);
    // The label's own score is not lower than itself, hence counted.
    scores.iter().filter(|other| !is_lower(other)).count() <= k && !own.is_nan()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAN: f32 = f32::NAN;

    #[test]
    fn top_k_is_the_rank_with_ties_against_the_label() {
        for (scores, label, smallest_k) in [
            (&[0.1_f32, 0.7, 0.2][..], 1, Some(1)),
            (&[0.1, 0.7, 0.2], 2, Some(2)),
            (&[0.1, 0.7, 0.2], 0, Some(3)),
            (&[0.5, 0.5, 0.1], 0, Some(2)),
            (&[0.5, 0.5, 0.1], 1, Some(2)),
            (&[0.0, -0.0], 0, Some(2)),
            (&[0.3, 0.3, 0.3, 0.3], 2, Some(4)),
            (&[NAN, 0.7, 0.2], 1, Some(2)),
            (&[NAN, 0.7, 0.2], 0, None),
            (&[f32::INFINITY, f32::NEG_INFINITY], 0, Some(1)),
            (&[0.1, 0.2], 2, None),
            (&[], 0, None),
        ] {
            for k in 0..6 {
                let expected = smallest_k.is_some_and(|smallest| k >= smallest);
                assert_eq!(top_k_correct(scores, label, k), expected, "{scores:?} {label} top {k}");
            }
        }
    }

    proptest! {
        #[test]
        fn of_distinct_scores_exactly_k_labels_are_correct(
            scores in proptest::collection::btree_set(-1000_i16..1000, 1..30),
            k in 0_usize..40,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).rev().collect();
            let n_correct = (0..scores.len()).filter(|label| top_k_correct(&scores, *label, k)).count();
            prop_assert_eq!(n_correct, k.min(scores.len()));
        }
    }
}
