//! A random permutation of 0..n without a table, for data sets of any size.

use crate::stream::Stream;

const ROUNDS: usize = 6;

/// A permutation of `0..n` in O(1) memory: a Feistel network on the smallest even number of bits that
/// holds `n`, walked along its cycle until the value is in range (fewer than 4 steps on average).
///
/// ```
/// # use moco_rng::{At, Permutation, Purpose, Seed};
/// let order = Permutation::new(Seed(0).stream(Purpose::Order, At::epoch(0)), 5);
/// let mut seen: Vec<u64> = (0..5).map(|i| order.get(i)).collect();
/// seen.sort();
/// assert_eq!(seen, [0, 1, 2, 3, 4]);
/// ```
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// Draws a permutation of `0..n`.
    #[must_use]
    pub fn new(mut stream: Stream, n: u64) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(1);
        Self { n, half_bits, keys: std::array::from_fn(|_| stream.next_u64()) }
    }

    /// The element at `position`, which must be less than n.
    #[must_use]
    pub fn get(&self, position: u64) -> u64 {
        debug_assert!(position < self.n, "position {position} of a permutation of {}", self.n);
        let mut value = self.encrypt(position);
        while value >= self.n {
            value = self.encrypt(value);
        }
        value
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The finalizer of MurmurHash3: each input bit flips each output bit with probability one half.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{At, Purpose, Seed};

    fn order(seed: u64, n: u64) -> Permutation {
        Permutation::new(Seed(seed).stream(Purpose::Order, At::default()), n)
    }

    proptest! {
        #[test]
        fn each_element_comes_once(seed: u64, n in 1_u64..3_000) {
            let permutation = order(seed, n);
            let mut seen: Vec<u64> = (0..n).map(|i| permutation.get(i)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn any_size_stays_in_range(seed: u64, n in 1_u64..(1 << 60), position: u64) {
            prop_assert!(order(seed, n).get(position % n) < n);
        }
    }

    #[test]
    fn neighbors_are_spread_like_random_pairs() {
        let n = 10_000;
        let permutation = order(9, n);
        let gap = |i| permutation.get(i).abs_diff(permutation.get(i + 1));
        let mean = (0..n - 1).map(gap).sum::<u64>() / (n - 1);
        // Two random positions are n/3 apart on average.
        assert!((3_200..3_470).contains(&mean), "mean gap {mean}");
    }

    #[test]
    fn seeds_give_different_orders() {
        let same =
            (0..1_000).filter(|i| order(1, 1_000).get(*i) == order(2, 1_000).get(*i)).count();
        assert!(same < 10, "{same} of 1000 positions agree");
    }
}
