//! Chroma brought to the picture's size as libjpeg's "fancy upsampling" does (`jdsample.c`).
//!
//! Each new sample lies a quarter of the way to a neighbor, so it is 3/4 of the near and 1/4 of the far
//! one. Which of two roundings is used alternates, in libjpeg's pattern.

use super::frame::{Frame, Plane};

/// Buffers for one row of one component.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Samples; those asked for begin at `start`.
    samples: Vec<u8>,
    start: usize,
    /// Sums over the near and the far row, one more on each side.
    sums: Vec<u16>,
}

impl Row {
    /// The samples of the picture's row `y` of `plane` for `n` columns from `left` on.
    #[inline(always)]
    pub(super) fn fill<'a>(
        &'a mut self,
        frame: &Frame,
        plane: &'a Plane,
        y: usize,
        (left, n): (usize, usize),
    ) -> &'a [u8] {
        let (across, down) = (frame.h / plane.h, frame.v / plane.v);
        let near = plane.row(y / down);
        // The first of two rows leans upward.
        let far = plane.row(if y % 2 == 0 { (y / 2).saturating_sub(1) } else { y / 2 + 1 });
        self.start = 0;
        match (across, down) {
            (1, 1) => return &near[left..left + n],
            (1, 2) => {
                let bias = if y % 2 == 0 { 1 } else { 2 };
                self.samples.clear();
                self.samples.extend(near[left..left + n].iter().zip(&far[left..]).map(
                    |(near, far)| ((3 * u16::from(*near) + u16::from(*far) + bias) >> 2) as u8,
                ));
            }
            (2, 1) if plane.width > 2 => {
                self.sum(near, (left, n), |x| u16::from(near[x]));
                self.double::<2>(left, n);
            }
            (2, 2) if plane.width > 2 => {
                self.sum(near, (left, n), |x| 3 * u16::from(near[x]) + u16::from(far[x]));
                self.double::<4>(left, n);
            }
            _ => {
                self.samples.clear();
                self.samples.extend((left..left + n).map(|x| near[x / across]));
            }
        }
        &self.samples[self.start..self.start + n]
    }

    /// Fills `sums` for the columns needed; the outermost samples repeat beyond the edges.
    #[inline(always)]
    fn sum(&mut self, near: &[u8], (left, n): (usize, usize), sum: impl Fn(usize) -> u16) {
        let (first, last) = (left / 2, (left + n - 1) / 2);
        let (inner_first, inner_last) = (first.saturating_sub(1), (last + 1).min(near.len() - 1));
        self.sums.clear();
        if first == 0 {
            self.sums.push(sum(0));
        }
        self.sums.extend((inner_first..=inner_last).map(&sum));
        if last + 1 == near.len() {
            self.sums.push(sum(last));
        }
    }

    /// Makes two samples of each sum but the outer ones. The sums are in units of 2 to the minus
    /// `BITS` - 2 of a sample.
    #[inline(always)]
    fn double<const BITS: u32>(&mut self, left: usize, n: usize) {
        self.start = left % 2;
        let n_pairs = self.sums.len() - 2;
        self.samples.clear();
        self.samples.resize(2 * n_pairs, 0);
        let (pairs, _) = self.samples.as_chunks_mut::<2>();
        let sums = &self.sums[..n_pairs + 2];
        let (even, odd) = if BITS == 2 { (1, 2) } else { (8, 7) };
        for ((pair, sums), _) in pairs.iter_mut().zip(sums.windows(3)).zip(0..n_pairs) {
            let middle = 3 * sums[1];
            *pair = [((middle + sums[0] + even) >> BITS) as u8, ((middle + sums[2] + odd) >> BITS) as u8];
        }
        debug_assert!(self.start + n <= self.samples.len());
    }
}
