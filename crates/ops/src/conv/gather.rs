//! Copies of what pixels meet, row by row: the operands of the inner kernel.
//!
//! A copied row is read once for each block of columns and is in the cache by then. Rows lie a little
//! apart: with a power of two of channels, rows at their own distance would fall into the same few
//! cache lines and push each other out.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::geometry::{Geometry, Region, Tap};
use crate::dense::Unwritten;
use crate::simd::{Float, vectorize};

/// Elements between the end of a row and the next one: one cache line of f32.
const SKEW: usize = 16;

/// Where the pixels of a channels-last batch `[n, h, w, c]` lie; a group's channels start at `first`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
    pub(super) first: usize,
}

impl Plane {
    /// The same pixels from this channel on.
    pub(super) fn of_group(self, first: usize) -> Self {
        Self { first, ..self }
    }

    fn at(self, image: usize, y: usize, x: usize) -> usize {
        ((image * self.h + y) * self.w + x) * self.c + self.first
    }
}

/// Where a pixel of a region lies, and where what its first tap meets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixel {
    pub(super) own: usize,
    pub(super) met: usize,
}

/// Pixels of a region, counted through all images.
pub(super) fn pixels(region: &Region, range: Range<usize>, own: Plane, met: Plane) -> Vec<Pixel> {
    let (ny, nx) = (region.ys.len(), region.xs.len());
    let pixel = |i: usize| {
        let (image, i) = (i / (ny * nx), i % (ny * nx));
        let ((y, met_y), (x, met_x)) = (region.ys[i / nx], region.xs[i % nx]);
        Pixel { own: own.at(image, y, x), met: met.at(image, met_y, met_x) }
    };
    range.map(pixel).collect()
}

/// Channels of one or more taps that are contiguous, in what is met and in the weights' rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Distance from what the first tap meets.
    pub(super) offset: isize,
    /// Row of the weights `[taps · channels, columns]`.
    pub(super) weight_row: usize,
    pub(super) len: usize,
}

/// Runs over all channels of the taps.
pub(super) fn runs(taps: &[Tap], channels: usize, met: Plane) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for tap in taps {
        let offset = (tap.dy * met.w.cast_signed() + tap.dx) * met.c.cast_signed();
        let run = Run { offset, weight_row: tap.index * channels, len: channels };
        match runs.last_mut() {
            Some(last) if last.is_before(&run) => last.len += channels,
            _ => runs.push(run),
        }
    }
    runs
}

impl Run {
    fn is_before(&self, next: &Self) -> bool {
        self.offset + self.len.cast_signed() == next.offset
            && self.weight_row + self.len == next.weight_row
    }

    /// The part of this run in a range of weight rows.
    fn within(&self, rows: &Range<usize>) -> Option<Self> {
        let start = self.weight_row.max(rows.start);
        let end = (self.weight_row + self.len).min(rows.end);
        let skipped = (start - self.weight_row).cast_signed();
        (start < end).then(|| Self {
            offset: self.offset + skipped,
            weight_row: start,
            len: end - start,
        })
    }
}

/// The parts of some runs in a range of weight rows.
pub(super) fn runs_within(runs: &[Run], rows: &Range<usize>) -> Vec<Run> {
    runs.iter().filter_map(|run| run.within(rows)).collect()
}

/// Cuts runs into chunks of at most `depth` elements in all.
pub(super) fn chunks(runs: &[Run], depth: usize) -> Vec<Vec<Run>> {
    let mut chunks = vec![Vec::new()];
    let mut room = depth;
    for run in runs {
        let mut rest = *run;
        while rest.len > 0 {
            if room == 0 {
                chunks.push(Vec::new());
                room = depth;
            }
            let len = rest.len.min(room);
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(Run { len, ..rest });
            }
            room -= len;
            rest = Run {
                offset: rest.offset + len.cast_signed(),
                weight_row: rest.weight_row + len,
                len: rest.len - len,
            };
        }
    }
    chunks
}

/// Rows for the inner kernel.
pub(super) struct Rows<T> {
    numbers: Unwritten<T>,
    pub(super) stride: usize,
}

impl<T: Float> Rows<T> {
    /// For each pixel the runs of what it meets, one after the other.
    pub(super) fn copy(from: &[T], pixels: &[Pixel], runs: &[Run]) -> Self {
        let depth: usize = runs.iter().map(|run| run.len).sum();
        let stride = depth.next_multiple_of(SKEW) + SKEW;
        let mut numbers = Unwritten::new(pixels.len() * stride);
        vectorize(|| {
            for (row, pixel) in numbers.elements().chunks_exact_mut(stride).zip(pixels) {
                let mut row = row;
                for run in runs {
                    let start = pixel.met.wrapping_add_signed(run.offset);
                    let (to, rest) = row.split_at_mut(run.len);
                    copy_run(&from[start..start + run.len], to);
                    row = rest;
                }
            }
        });
        Self { numbers, stride }
    }

    /// Blocks of some columns of the pixels themselves, `widths[i]` columns wide, each contiguous and filled up
    /// with zeros; a block starts at `pixels · (sum of the widths before)`.
    pub(super) fn blocks(
        from: &[T],
        pixels: &[Pixel],
        columns: Range<usize>,
        widths: &[usize],
    ) -> Self {
        let all: usize = widths.iter().sum();
        let mut numbers = Unwritten::new(pixels.len() * all);
        vectorize(|| {
            let mut rest = numbers.elements();
            let mut column = 0;
            for width in widths {
                let (block, behind) = rest.split_at_mut(pixels.len() * width);
                let within = (*width).min(columns.len() - column);
                for (row, pixel) in block.chunks_exact_mut(*width).zip(pixels) {
                    let (to, padding) = row.split_at_mut(within);
                    let start = pixel.own + columns.start + column;
                    copy_run(&from[start..start + within], to);
                    for element in padding {
                        element.write(T::zero());
                    }
                }
                rest = behind;
                column += width;
            }
        });
        Self { numbers, stride: 0 }
    }

    /// Where the numbers start.
    pub(super) fn pointer(&self) -> *const T {
        self.numbers.pointer()
    }
}

#[inline(always)]
fn copy_run<T: Float>(from: &[T], to: &mut [MaybeUninit<T>]) {
    let (from, from_rest) = from.as_chunks::<16>();
    let (to, to_rest) = to.as_chunks_mut::<16>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.map(MaybeUninit::new);
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        to.write(*from);
    }
}

impl Geometry {
    /// The plane of the input.
    pub(super) fn input_plane(&self) -> Plane {
        Plane { h: self.h, w: self.w, c: self.c, first: 0 }
    }

    /// The plane of the output.
    pub(super) fn output_plane(&self) -> Plane {
        Plane { h: self.ho, w: self.wo, c: self.co, first: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_where_both_sides_are_contiguous() {
        let tap = |index, dy, dx| Tap { index, dy, dx };
        let met = Plane { h: 9, w: 10, c: 4, first: 0 };
        let row = [tap(3, 0, 0), tap(4, 0, 1), tap(5, 0, 2), tap(6, 1, 0)];
        let run = |offset, weight_row, len| Run { offset, weight_row, len };
        assert_eq!(runs(&row, 4, met), [run(0, 12, 12), run(40, 24, 4)]);
        // With groups a pixel has more channels than a run.
        assert_eq!(runs(&row[..2], 2, met), [run(0, 6, 2), run(4, 8, 2)]);
        let all = runs(&row, 4, met);
        assert_eq!(runs_within(&all, &(14..25)), [run(2, 14, 10), run(40, 24, 1)]);
        assert_eq!(chunks(&all, 10), [vec![run(0, 12, 10)], vec![run(10, 22, 2), run(40, 24, 4)]]);
        assert_eq!(chunks(&[], 10), [vec![]]);
    }
}
