//! Lossless scans: differences of samples from a prediction (T.81, annex H).

use std::ops::Range;

use crate::JpegError;
use crate::frame::{Frame, Plane};
use crate::huffman::{Bits, Huffman};
use crate::scan::{Scan, intervals};

/// A difference of this many bits has none of them in the file.
const WIDEST: u8 = 16;

/// Reads a scan into the samples of its planes.
pub(crate) fn read(scan: &Scan<'_>, frame: &mut Frame) -> Result<(), JpegError> {
    let across = scan.n_units(frame).0;
    if !scan.restart_interval.is_multiple_of(across) {
        let reason = "restarts of a lossless picture are not at the ends of rows";
        return Err(JpegError::Damaged(reason));
    }
    let mut parts = Vec::new();
    for (plane, dc, _) in &scan.parts {
        let dc = dc.as_ref().ok_or(JpegError::Damaged("a scan lacks a table of codes"))?;
        let unit = if scan.parts.len() == 1 { (1, 1) } else { sampling(&frame.planes[*plane]) };
        let n_rows = scan.n_units(frame).1 * unit.1;
        let rows = vec![0; across * unit.0 * n_rows];
        parts.push(Part { plane: *plane, dc, unit, stride: across * unit.0, rows, starts: vec![] });
    }
    for interval in intervals(scan, frame) {
        let (units, bits) = interval?;
        read_differences(bits, &mut parts, across, units)?;
    }
    for part in &parts {
        undo(scan, part, &mut frame.planes[part.plane]);
    }
    Ok(())
}

fn sampling(plane: &Plane) -> (usize, usize) {
    (plane.h, plane.v)
}

/// A component while its differences are read.
struct Part<'a> {
    plane: usize,
    dc: &'a Huffman,
    /// Samples of a unit across and down.
    unit: (usize, usize),
    stride: usize,
    /// The differences.
    rows: Vec<i32>,
    /// Rows that begin after a restart.
    starts: Vec<usize>,
}

fn read_differences(
    mut bits: Bits<'_>,
    parts: &mut [Part<'_>],
    across: usize,
    units: Range<usize>,
) -> Result<(), JpegError> {
    for part in parts.iter_mut() {
        part.starts.push(units.start / across * part.unit.1);
    }
    for unit in units {
        let (ux, uy) = (unit % across, unit / across);
        for part in parts.iter_mut() {
            let (h, v) = part.unit;
            for y in uy * v..(uy + 1) * v {
                for x in ux * h..(ux + 1) * h {
                    let size = bits.byte(part.dc);
                    part.rows[y * part.stride + x] =
                        if size == WIDEST { 1 << 15 } else { bits.value(size & 15) };
                }
            }
        }
        if ux + 1 == across && bits.is_overrun() {
            break;
        }
    }
    bits.check()
}

/// Adds predictions to the differences.
fn undo(scan: &Scan<'_>, part: &Part<'_>, plane: &mut Plane) {
    let (width, height, stride) = (plane.width, plane.height, plane.stride());
    let mut above = vec![0; width];
    let mut row = vec![0; width];
    let first = 1 << (7 - scan.low);
    // In a scan of only this component, libjpeg-turbo starts again at the first of the rows that it reads at once.
    let at_once = if scan.parts.len() == 1 { plane.v } else { 1 };
    let starts: Vec<usize> = part.starts.iter().map(|y| y / at_once * at_once).collect();
    for y in 0..height {
        let is_start = starts.binary_search(&y).is_ok();
        let differences = &part.rows[y * part.stride..][..width];
        for (x, difference) in differences.iter().enumerate() {
            let prediction = match (x, is_start) {
                (0, true) => first,
                (0, false) => above[0],
                (_, true) => row[x - 1],
                (_, false) => predict(scan.predictor, row[x - 1], above[x], above[x - 1]),
            };
            // Samples are counted modulo 2 to the 16th.
            row[x] = (difference + prediction) & 0xffff;
            plane.samples[y * stride + x] = (row[x] << scan.low) as u8;
        }
        std::mem::swap(&mut row, &mut above);
    }
}

/// The prediction from the samples to the left, above, and above to the left (T.81, table H.1).
fn predict(predictor: usize, left: i32, up: i32, corner: i32) -> i32 {
    match predictor {
        1 => left,
        2 => up,
        3 => corner,
        4 => left + up - corner,
        5 => left + ((up - corner) >> 1),
        6 => up + ((left - corner) >> 1),
        _ => (left + up) >> 1,
    }
}
