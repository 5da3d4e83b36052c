//! Sequential scans: each block is complete, so its samples are computed at once.

use std::ops::Range;

use super::Fault;
use super::frame::{Frame, Plane};
use super::huffman::{Bits, END_OF_BLOCK, Huffman};
use super::idct::inverse;
use super::segments::{NATURAL, Scan, sample_offset};
use crate::Fidelity;
use crate::simd::{Avx2, vectorized};

/// A unit's blocks of one component.
struct Part<'a> {
    plane: usize,
    dc: &'a Huffman,
    ac: &'a Huffman,
    predicted: i32,
}

/// Reads a scan into the samples of its planes.
pub(super) fn read(scan: &Scan<'_>, frame: &mut Frame) -> Result<(), Fault> {
    let mut parts = Vec::new();
    for (plane, dc, ac) in &scan.parts {
        let (Some(dc), Some(ac)) = (dc, ac) else {
            return Err(Fault::Damaged("a scan lacks a table of codes"));
        };
        parts.push(Part { plane: *plane, dc, ac, predicted: 0 });
    }
    for interval in intervals(scan, frame) {
        let (units, bits) = interval?;
        parts.iter_mut().for_each(|part| part.predicted = 0);
        vectorized(
            #[inline(always)]
            |simd| read_units(simd, bits, &mut parts, frame, units),
        )?;
    }
    Ok(())
}

/// The units of each restart interval, and their bits.
pub(super) fn intervals<'a>(
    scan: &'a Scan<'_>,
    frame: &Frame,
) -> impl Iterator<Item = Result<(Range<usize>, Bits<'a>), Fault>> + use<'a> {
    let (across, down) = match scan.parts.as_slice() {
        [(plane, ..)] => frame.planes[*plane].own_blocks(),
        _ => frame.n_units,
    };
    let n_units = across * down;
    let interval = if scan.restart_interval == 0 { n_units } else { scan.restart_interval };
    let (mut start, mut ends) = (0, scan.ends.iter());
    (0..n_units).step_by(interval).map(move |first| {
        let end = *ends.next().ok_or(Fault::Truncated)?;
        let bits = Bits::new(&scan.data[start..end]);
        start = end;
        Ok((first..(first + interval).min(n_units), bits))
    })
}

#[inline(always)]
fn read_units(
    simd: Option<Avx2>,
    mut bits: Bits<'_>,
    parts: &mut [Part<'_>],
    frame: &mut Frame,
    units: Range<usize>,
) -> Result<(), Fault> {
    let alone = parts.len() == 1;
    let across = if alone { frame.planes[parts[0].plane].own_blocks().0 } else { frame.n_units.0 };
    let (mut ux, mut uy) = (units.start % across, units.start / across);
    for _ in units {
        for part in parts.iter_mut() {
            let plane = &mut frame.planes[part.plane];
            let (h, v) = if alone { (1, 1) } else { (plane.h, plane.v) };
            for y in 0..v {
                for x in 0..h {
                    read_block(simd, &mut bits, part, plane, (ux * h + x, uy * v + y));
                }
            }
        }
        ux += 1;
        if ux == across {
            (ux, uy) = (0, uy + 1);
            if bits.is_overrun()
                || (frame.fidelity == Fidelity::Fast && is_enough(parts, frame, uy))
            {
                break;
            }
        }
    }
    if bits.is_overrun() { Err(Fault::Damaged(BAD_CODE)) } else { Ok(()) }
}

/// Whether no row of units from `uy` on is needed.
fn is_enough(parts: &[Part<'_>], frame: &Frame, uy: usize) -> bool {
    let alone = parts.len() == 1;
    parts.iter().all(|part| {
        let plane = &frame.planes[part.plane];
        uy * if alone { 1 } else { plane.v } >= plane.down.end
    })
}

/// The reason where the bits of a scan run out or make no code.
pub(super) const BAD_CODE: &str = "the coded data of a scan is wrong or ends early";

/// A block while it is read.
struct Block {
    /// In natural order.
    coefficients: [i16; 64],
    n_read: usize,
    /// The last that is not 0, in the order of the file.
    last: usize,
}

impl Block {
    /// Takes a run of zeros and the coefficient after it; whether more follow.
    #[inline(always)]
    fn put(&mut self, (run, value): (usize, i32)) -> bool {
        let at = self.n_read + run;
        if at >= END_OF_BLOCK {
            return false;
        }
        self.coefficients[usize::from(NATURAL[at])] = value as i16;
        self.last = at;
        self.n_read = at + 1;
        self.n_read < END_OF_BLOCK
    }
}

#[inline(always)]
fn read_block(
    simd: Option<Avx2>,
    bits: &mut Bits<'_>,
    part: &mut Part<'_>,
    plane: &mut Plane,
    (bx, by): (usize, usize),
) {
    let mut block = Block { coefficients: [0; 64], n_read: 1, last: 0 };
    let (_, difference) = bits.run_and_value(part.dc);
    part.predicted = part.predicted.wrapping_add(difference);
    block.coefficients[0] = part.predicted as i16;
    // Bits are brought for two codes at a time; the first goes with that of the constant coefficient.
    let mut has_more = block.put(bits.next_run_and_value(part.ac));
    while has_more {
        has_more =
            block.put(bits.run_and_value(part.ac)) && block.put(bits.next_run_and_value(part.ac));
    }
    let Block { coefficients, last, .. } = block;
    if plane.is_needed(bx, by) {
        let stride = plane.stride();
        let at = sample_offset(stride, bx, by);
        if let Some(table) = &plane.quantization {
            inverse(simd, &coefficients, last, table, (&mut plane.samples[at..], stride));
        }
    }
}
