//! Progressive scans: each adds bits to a band of coefficients (T.81, annex G).

use crate::JpegError;
use crate::block::{NATURAL, sample_offset};
use crate::frame::Frame;
use crate::huffman::{Bits, Huffman};
use crate::idct::{inverse, last_of};
use crate::scan::{Scan, intervals};
use crate::simd::vectorized;
use crate::smooth::{self, Smoother};

/// Reads a scan into the coefficients of its planes.
pub(crate) fn read(scan: &Scan<'_>, frame: &mut Frame) -> Result<(), JpegError> {
    for interval in intervals(scan, frame) {
        let (units, mut bits) = interval?;
        if scan.band.0 == 0 {
            read_first(&mut bits, scan, frame, units);
        } else {
            read_band(&mut bits, scan, frame, units)?;
        }
        bits.check()?;
    }
    Ok(())
}

/// First coefficients, or one more bit of them.
fn read_first(
    bits: &mut Bits<'_>,
    scan: &Scan<'_>,
    frame: &mut Frame,
    units: std::ops::Range<usize>,
) {
    let single = scan.parts.len() == 1;
    let mut predicted = [0_i32; 4];
    for unit in units {
        for (plane_idx, dc, _) in &scan.parts {
            let plane = &mut frame.planes[*plane_idx];
            let (h, v, across) = if single {
                (1, 1, plane.own_blocks().0)
            } else {
                (plane.h, plane.v, frame.n_units.0)
            };
            let (ux, uy) = (unit % across, unit / across);
            for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                let block = (uy * v + y) * plane.n_across + ux * h + x;
                let first = &mut plane.coefficients[block][0];
                if let Some(dc) = dc {
                    let size = bits.byte(dc) & 15;
                    let value = &mut predicted[*plane_idx];
                    *value = value.wrapping_add(bits.value(size));
                    *first = (*value << scan.low) as i16;
                } else {
                    *first |= (bits.take(1) << scan.low) as i16;
                }
            }
        }
    }
}

/// A band of the other coefficients of one component.
fn read_band(
    bits: &mut Bits<'_>,
    scan: &Scan<'_>,
    frame: &mut Frame,
    units: std::ops::Range<usize>,
) -> Result<(), JpegError> {
    let [(plane, _, Some(ac))] = scan.parts.as_slice() else {
        return Err(JpegError::Damaged("a scan of a band has several components"));
    };
    let plane = &mut frame.planes[*plane];
    let across = plane.own_blocks().0;
    // Blocks that still end at once.
    let mut n_ended = 0_u32;
    for unit in units {
        let block = &mut plane.coefficients[unit / across * plane.n_across + unit % across];
        if scan.high == 0 {
            first_bits(bits, ac, scan, block, &mut n_ended);
        } else {
            next_bit(bits, ac, scan, block, &mut n_ended);
        }
    }
    Ok(())
}

fn first_bits(
    bits: &mut Bits<'_>,
    ac: &Huffman,
    scan: &Scan<'_>,
    block: &mut [i16; 64],
    n_ended: &mut u32,
) {
    if *n_ended > 0 {
        *n_ended -= 1;
        return;
    }
    let (mut k, last) = scan.band;
    while k <= last {
        let byte = bits.byte(ac);
        let (run, size) = (byte >> 4, byte & 15);
        if size > 0 {
            k += usize::from(run);
            let value = bits.value(size) << scan.low;
            if k > last {
                *bits = bits.with_long_run();
                return;
            }
            block[usize::from(NATURAL[k])] = value as i16;
            k += 1;
        } else if run == 15 {
            k += 16;
        } else {
            *n_ended = (1 << run) - 1 + bits.take(u32::from(run));
            return;
        }
    }
}

/// One more bit of the coefficients that are not 0, and new ones of that size.
fn next_bit(
    bits: &mut Bits<'_>,
    ac: &Huffman,
    scan: &Scan<'_>,
    block: &mut [i16; 64],
    n_ended: &mut u32,
) {
    let bit = 1_i16 << scan.low;
    let (mut k, last) = scan.band;
    if *n_ended == 0 {
        while k <= last {
            let byte = bits.byte(ac);
            let (mut run, size) = (byte >> 4, byte & 15);
            let mut new = 0;
            if size > 0 {
                new = if bits.take(1) == 1 { bit } else { -bit };
            } else if run < 15 {
                *n_ended = (1 << run) + bits.take(u32::from(run));
                break;
            }
            loop {
                if k > last {
                    if new != 0 {
                        *bits = bits.with_long_run();
                    }
                    break;
                }
                let coefficient = &mut block[usize::from(NATURAL[k])];
                if *coefficient != 0 {
                    refine(bits, coefficient, bit);
                } else if run == 0 {
                    *coefficient = new;
                    k += 1;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
        }
    }
    if *n_ended > 0 {
        for natural in &NATURAL[k.min(64)..=last] {
            let coefficient = &mut block[usize::from(*natural)];
            if *coefficient != 0 {
                refine(bits, coefficient, bit);
            }
        }
        *n_ended -= 1;
    }
}

fn refine(bits: &mut Bits<'_>, coefficient: &mut i16, bit: i16) {
    if bits.take(1) == 1 && *coefficient & bit == 0 {
        *coefficient = coefficient.wrapping_add(if *coefficient >= 0 { bit } else { -bit });
    }
}

/// Computes the samples from the coefficients.
pub(crate) fn finish(frame: &mut Frame) {
    let smooths = smooth::is_useful(frame);
    for plane in &mut frame.planes {
        let stride = plane.stride();
        // A component without a scan stays gray.
        let table = plane.quantization.unwrap_or([0; 64]);
        let smoother = smooths.then(|| Smoother::new(plane, &table, frame.n_units.1));
        vectorized(
            #[inline(always)]
            |simd| {
                for by in plane.down.clone() {
                    for bx in plane.across.clone() {
                        let kept = &plane.coefficients[by * plane.n_across + bx];
                        let smoothed;
                        let block = if let Some(smoother) = &smoother {
                            smoothed = smoother.block(plane, bx, by);
                            &smoothed
                        } else {
                            kept
                        };
                        let at = sample_offset(stride, bx, by);
                        let samples = &mut plane.samples[at..];
                        inverse(simd, block, last_of(block), &table, samples, stride);
                    }
                }
            },
        );
    }
}
