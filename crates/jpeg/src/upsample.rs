//! Chroma brought to the picture's size as libjpeg's "fancy upsampling" does (`jdsample.c`).
//!
//! Each new sample lies a quarter of the way to a neighbor, so it is 3/4 of the near and 1/4 of the far
//! one. Which of two roundings is used alternates, in libjpeg's pattern.

use crate::frame::{Frame, Plane};
use crate::header::Process;

/// Buffers for one row of one component.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// Samples; those asked for begin at `start`.
    samples: Vec<u8>,
    start: usize,
    /// Sums over the near and the far row, one more on each side.
    sums: Vec<u16>,
}

/// Columns of the picture that are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) left: usize,
    pub(crate) n: usize,
}

/// A row of a plane and how much it counts.
#[derive(Debug, Clone, Copy)]
struct Weighted<'a> {
    row: &'a [u8],
    weight: u16,
}

impl Row {
    /// The samples of the picture's row `y` of `plane` in some columns.
    #[inline(always)]
    pub(crate) fn fill<'a>(
        &'a mut self,
        frame: &Frame,
        plane: &'a Plane,
        y: usize,
        columns: Columns,
    ) -> &'a [u8] {
        let Columns { left, n } = columns;
        let (across, down) = (frame.h / plane.h, frame.v / plane.v);
        let near = plane.row(y / down);
        // The first of two rows leans upward.
        let far =
            plane.row(if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { y / 2 + 1 });
        self.start = 0;
        let is_smooth = frame.process != Process::Lossless;
        match (across, down) {
            (1, 1) => return &near[left..left + n],
            (1, 2) if is_smooth => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                self.samples.resize(n, 0);
                let (near, far) = (&near[left..left + n], &far[left..left + n]);
                for (i, sample) in self.samples.iter_mut().enumerate() {
                    *sample = ((3 * u16::from(near[i]) + u16::from(far[i]) + bias) >> 2) as u8;
                }
            }
            (2, 1) if is_smooth && plane.width > 2 => {
                let near = Weighted { row: near, weight: 1 };
                self.sum(columns, near, Weighted { weight: 0, ..near });
                self.double::<2>(left);
            }
            (2, 2) if is_smooth && plane.width > 2 => {
                let near = Weighted { row: near, weight: 3 };
                self.sum(columns, near, Weighted { row: far, weight: 1 });
                self.double::<4>(left);
            }
            _ => {
                self.samples.resize(n, 0);
                for (x, sample) in (left..).zip(&mut self.samples) {
                    *sample = near[x / across];
                }
            }
        }
        &self.samples[self.start..self.start + n]
    }

    /// Fills `sums` for the columns needed; the outermost samples repeat beyond the edges.
    #[inline(always)]
    fn sum(&mut self, columns: Columns, near: Weighted<'_>, far: Weighted<'_>) {
        let Columns { left, n } = columns;
        let weights = [near.weight, far.weight];
        let (first, last) = (left / 2, (left + n - 1) / 2);
        let end = near.row.len() - 1;
        self.sums.resize(last - first + 3, 0);
        let start = usize::from(first == 0);
        let (from, to) = (first.saturating_sub(1), (last + 1).min(end));
        let (near, far) = (&near.row[from..=to], &far.row[from..=to]);
        let sums = &mut self.sums[start..start + near.len()];
        for i in 0..sums.len() {
            sums[i] = weights[0] * u16::from(near[i]) + weights[1] * u16::from(far[i]);
        }
        if first == 0 {
            self.sums[0] = self.sums[1];
        }
        if last == end {
            let n_sums = self.sums.len();
            self.sums[n_sums - 1] = self.sums[n_sums - 2];
        }
    }

    /// Makes two samples of each sum but the outer ones; a sum of equal samples is 2 to the `BITS` - 2 of
    /// them.
    #[inline(always)]
    fn double<const BITS: u32>(&mut self, left: usize) {
        self.start = left % 2;
        let n_pairs = self.sums.len() - 2;
        self.samples.resize(2 * n_pairs, 0);
        let (pairs, _) = self.samples.as_chunks_mut::<2>();
        let pairs = &mut pairs[..n_pairs];
        let (before, middle, after) =
            (&self.sums[..n_pairs], &self.sums[1..=n_pairs], &self.sums[2..n_pairs + 2]);
        let (even, odd) = if BITS == 2 { (1, 2) } else { (8, 7) };
        for i in 0..n_pairs {
            let near = 3 * middle[i];
            pairs[i] = [
                ((near + before[i] + even) >> BITS) as u8,
                ((near + after[i] + odd) >> BITS) as u8,
            ];
        }
    }
}
