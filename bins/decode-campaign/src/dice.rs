//! Draws of a file's options.

use moco_rng::{At, Purpose, Seed, Stream};

/// What a file is drawn with.
#[derive(Debug)]
pub(crate) struct Dice {
    stream: Stream,
}

impl Dice {
    /// Those of a file of a campaign.
    pub(crate) fn new(seed: u64, file: u64) -> Self {
        Self { stream: Seed(seed).stream(Purpose::DecodeCampaign, At::index(file)) }
    }

    /// Less than `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "less than a usize")]
        let drawn = self.stream.below(n.max(1) as u64) as usize;
        drawn
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i32, high: i32) -> i32 {
        let n = u64::from(high.abs_diff(low)) + 1;
        low + i32::try_from(self.stream.below(n)).unwrap_or_default()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.stream.next_u32().to_le_bytes()[0]
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    /// True in so many of 100 cases.
    pub(crate) fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    /// One of them.
    pub(crate) fn pick<T: Clone>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())].clone()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.stream.shuffle(items);
    }
}
