//! Seeds, purposes, coordinates and the stream of numbers that belongs to a coordinate.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The seed of a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

/// The purpose of a stream; two purposes never share numbers. The discriminants are part of the
/// format of every result: they never change, new ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; `index` numbers the tensors.
    Init = 1,
    /// The random start of the queue.
    Queue = 2,
    /// The order of the samples in an epoch.
    Order = 3,
    /// The views of a sample; `index` is the sample, `view` the view.
    Augment = 4,
    /// The permutation of Shuffling BN; `index` is the global step.
    ShuffleBn = 5,
    /// The embedded data set; `index` is the image.
    Textures = 6,
    /// The linear classifier's initial weights and order.
    LinearProbe = 7,
    /// The substitute for a sample that cannot be used; `index` is the position, `view` the attempt.
    Substitute = 8,
    /// A part of a source that stands for all of it; `index` is its use.
    Subset = 9,
    /// The files that decoded pictures are compared on; `index` is the file.
    DecodeCampaign = 10,
}

/// The coordinate of a stream within a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Sample, step or tensor number.
    pub index: u64,
    /// View of the sample, from 0.
    pub view: u32,
}

impl At {
    /// The coordinate with this index, epoch 0 and view 0.
    #[must_use]
    pub fn index(index: u64) -> Self {
        Self { index, ..Self::default() }
    }

    /// The coordinate with this epoch, index 0 and view 0.
    #[must_use]
    pub fn epoch(epoch: u32) -> Self {
        Self { epoch, ..Self::default() }
    }
}

impl Seed {
    /// The stream that belongs to a purpose and a coordinate.
    #[must_use]
    pub fn stream(self, purpose: Purpose, at: At) -> Stream {
        let mut key = [0_u8; 32];
        key[0..8].copy_from_slice(&self.0.to_le_bytes());
        key[8..12].copy_from_slice(&(purpose as u32).to_le_bytes());
        key[12..16].copy_from_slice(&at.epoch.to_le_bytes());
        key[16..24].copy_from_slice(&at.index.to_le_bytes());
        key[24..28].copy_from_slice(&at.view.to_le_bytes());
        Stream { bits: ChaCha8Rng::from_seed(key) }
    }
}

/// An independent sequence of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    bits: ChaCha8Rng,
}

impl Stream {
    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.bits.next_u32()
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.bits.next_u64()
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let numerator = (self.next_u64() >> 11) as f64;
        numerator * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform integer in [0, n) without bias; `n` must be positive.
    pub fn below(&mut self, n: u64) -> u64 {
        debug_assert!(n > 0, "an integer below zero does not exist");
        // Numbers at the top that would favor small remainders are drawn again.
        let zone = u64::MAX - (u64::MAX % n + 1) % n;
        loop {
            let bits = self.next_u64();
            if bits <= zone {
                return bits % n;
            }
        }
    }

    /// True with probability `p`.
    pub fn bernoulli(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box–Muller; one of the pair is used, so each draw costs the same).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(2.0 * std::f64::consts::PI * self.uniform())
    }

    /// Fisher–Yates shuffle in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            #[expect(clippy::cast_possible_truncation, reason = "below(n) is less than a usize")]
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    /// A random permutation of 0..n.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(index: u64) -> Stream {
        Seed(1).stream(Purpose::Augment, At::index(index))
    }

    /// Computed with an independent ChaCha8 (Python, RFC 8439 block function with 8 rounds):
    /// see `tests/golden/chacha8.py`.
    #[test]
    fn keystream_is_chacha8_of_the_coordinate() {
        let at = At { epoch: 2, index: 3, view: 1 };
        let mut stream = Seed(0x0123_4567_89ab_cdef).stream(Purpose::Order, at);
        let words: Vec<u32> = (0..4).map(|_| stream.next_u32()).collect();
        assert_eq!(words, GOLDEN);
    }
    const GOLDEN: [u32; 4] = [0xbb2a_d443, 0xb567_8723, 0xa08e_0ed8, 0x63bb_82e5];

    #[test]
    fn coordinates_do_not_share_numbers() {
        let base = At { epoch: 1, index: 2, view: 1 };
        let first = |seed: u64, purpose, at| Seed(seed).stream(purpose, at).next_u64();
        let all = [
            first(1, Purpose::Augment, base),
            first(2, Purpose::Augment, base),
            first(1, Purpose::Order, base),
            first(1, Purpose::Augment, At { epoch: 2, ..base }),
            first(1, Purpose::Augment, At { index: 3, ..base }),
            first(1, Purpose::Augment, At { view: 0, ..base }),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "coordinate {i} repeats: {all:?}");
        }
    }

    #[test]
    fn uniform_has_the_right_moments_and_range() {
        let mut stream = stream(0);
        let draws: Vec<f64> = (0..40_000).map(|_| stream.uniform()).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 40_000.0;
        assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
        assert!((mean - 0.5).abs() < 0.006, "mean {mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.002, "variance {variance}");
    }

    #[test]
    fn normal_has_the_right_moments() {
        let mut stream = stream(1);
        let draws: Vec<f64> = (0..40_000).map(|_| stream.normal()).collect();
        let moment = |p: i32| draws.iter().map(|x| x.powi(p)).sum::<f64>() / 40_000.0;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03);
        assert!(moment(3).abs() < 0.08 && (moment(4) - 3.0).abs() < 0.2);
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut stream = stream(2);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[usize::try_from(stream.below(7)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    fn bernoulli_keeps_its_probability() {
        let mut stream = stream(3);
        let hits = (0..20_000).filter(|_| stream.bernoulli(0.2)).count();
        assert!((3_800..4_200).contains(&hits), "{hits}");
        assert!(!stream.bernoulli(0.0) && stream.bernoulli(1.0));
    }

    #[test]
    fn permutation_holds_each_number_once_and_depends_on_the_stream() {
        let mut sorted = stream(4).permutation(100);
        assert_ne!(sorted, stream(5).permutation(100));
        assert_ne!(sorted, (0..100).collect::<Vec<_>>());
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
