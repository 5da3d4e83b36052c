//! Sequential scans: each block is complete, so where one scan has them all, samples are computed at once.

use std::ops::Range;

use crate::block::{NATURAL, SIDE, sample_offset};
use crate::frame::{Frame, Plane};
use crate::huffman::{Bits, END_OF_BLOCK, Huffman, RunAndValue};
use crate::idct::inverse;
use crate::scan::{Scan, intervals};
use crate::simd::{Avx2, vectorized};
use crate::{BelowRegion, JpegError};

/// A unit's blocks of one component.
struct Part<'a> {
    plane: usize,
    dc: &'a Huffman,
    ac: &'a Huffman,
    predicted: i32,
}

/// Reads a scan into the samples of its planes, or into the coefficients if the frame keeps them.
pub(crate) fn read(scan: &Scan<'_>, frame: &mut Frame) -> Result<(), JpegError> {
    let mut parts = Vec::new();
    for (plane, dc, ac) in &scan.parts {
        let (Some(dc), Some(ac)) = (dc, ac) else {
            return Err(JpegError::Damaged("a scan lacks a table of codes"));
        };
        parts.push(Part { plane: *plane, dc, ac, predicted: 0 });
    }
    for interval in intervals(scan, frame) {
        let (units, bits) = interval?;
        parts.iter_mut().for_each(|part| part.predicted = 0);
        vectorized(
            #[inline(always)]
            |simd| {
                if frame.keeps_coefficients {
                    read_units(bits, &mut parts, frame, units, Keep)
                } else {
                    read_units(bits, &mut parts, frame, units, Transform(simd))
                }
            },
        )?;
    }
    Ok(())
}

/// What happens to a block that was read.
trait Take: Copy {
    /// The coefficients that the block has before.
    fn before(self, plane: &Plane, bx: usize, by: usize) -> [i16; 64];
    fn take(self, block: &Block, plane: &mut Plane, bx: usize, by: usize);
}

/// Its samples are computed at once.
#[derive(Clone, Copy)]
struct Transform(Option<Avx2>);

impl Take for Transform {
    #[inline(always)]
    fn before(self, _: &Plane, _: usize, _: usize) -> [i16; 64] {
        [0; 64]
    }

    #[inline(always)]
    fn take(self, block: &Block, plane: &mut Plane, bx: usize, by: usize) {
        if plane.is_needed(bx, by) {
            let stride = plane.stride();
            let at = sample_offset(stride, bx, by);
            if let Some(table) = &plane.quantization {
                let samples = &mut plane.samples[at..];
                inverse(self.0, &block.coefficients, block.last, table, samples, stride);
            }
        }
    }
}

/// It is kept, for a picture in several scans; one that is read twice has the coefficients of both.
#[derive(Clone, Copy)]
struct Keep;

impl Take for Keep {
    fn before(self, plane: &Plane, bx: usize, by: usize) -> [i16; 64] {
        plane.coefficients[by * plane.n_across + bx]
    }

    fn take(self, block: &Block, plane: &mut Plane, bx: usize, by: usize) {
        plane.coefficients[by * plane.n_across + bx] = block.coefficients;
    }
}

#[inline(always)]
fn read_units(
    mut bits: Bits<'_>,
    parts: &mut [Part<'_>],
    frame: &mut Frame,
    units: Range<usize>,
    take: impl Take,
) -> Result<(), JpegError> {
    let single = parts.len() == 1;
    let across = if single { frame.planes[parts[0].plane].own_blocks().0 } else { frame.n_units.0 };
    let (mut ux, mut uy) = (units.start % across, units.start / across);
    for _ in units {
        for part in parts.iter_mut() {
            let plane = &mut frame.planes[part.plane];
            let (h, v) = if single { (1, 1) } else { (plane.h, plane.v) };
            for y in 0..v {
                for x in 0..h {
                    read_block(&mut bits, part, plane, [ux * h + x, uy * v + y], take);
                }
            }
        }
        ux += 1;
        if ux == across {
            (ux, uy) = (0, uy + 1);
            if bits.is_overrun()
                || (frame.below == BelowRegion::Skip && is_enough(parts, frame, uy))
            {
                break;
            }
        }
    }
    bits.check()
}

/// Whether no row of units from `uy` on is needed.
fn is_enough(parts: &[Part<'_>], frame: &Frame, uy: usize) -> bool {
    let single = parts.len() == 1;
    parts.iter().all(|part| {
        let plane = &frame.planes[part.plane];
        uy * if single { 1 } else { plane.v } >= plane.down.end
    })
}

/// A block while it is read.
struct Block {
    /// In natural order.
    coefficients: [i16; 64],
    n_read: usize,
    /// The last that is not 0, in the order of the file.
    last: usize,
    /// Where a run ended that passed the end of the block; there is one at the end of most.
    past: usize,
}

impl Block {
    /// Takes a run of zeros and the coefficient after it; whether more follow.
    #[inline(always)]
    fn put(&mut self, next: RunAndValue) -> bool {
        let at = self.n_read + next.run;
        if at >= SIDE * SIDE {
            self.past = at;
            return false;
        }
        self.coefficients[usize::from(NATURAL[at])] = next.value as i16;
        self.last = if next.value == 0 { self.last } else { at };
        self.n_read = at + 1;
        self.n_read < SIDE * SIDE
    }
}

#[inline(always)]
fn read_block(
    bits: &mut Bits<'_>,
    part: &mut Part<'_>,
    plane: &mut Plane,
    [bx, by]: [usize; 2],
    take: impl Take,
) {
    let coefficients = take.before(plane, bx, by);
    let mut block = Block { coefficients, n_read: 1, last: 0, past: 0 };
    let difference = bits.run_and_value(part.dc).value;
    part.predicted = part.predicted.wrapping_add(difference);
    block.coefficients[0] = part.predicted as i16;
    // Bits are brought for two codes at a time; the first goes with that of the constant coefficient.
    let mut has_more = block.put(bits.next_run_and_value(part.ac));
    while has_more {
        has_more =
            block.put(bits.run_and_value(part.ac)) && block.put(bits.next_run_and_value(part.ac));
    }
    if (SIDE * SIDE..END_OF_BLOCK).contains(&block.past) {
        *bits = bits.with_long_run();
    }
    take.take(&block, plane, bx, by);
}
