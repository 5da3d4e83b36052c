//! Tables that scans refer to.

use crate::JpegError;
use crate::block::NATURAL;
use crate::huffman::{Huffman, Use};
use crate::segments::{DHT, DQT, DRI};
use crate::standard;

/// Class of the tables for first coefficients.
pub(crate) const DC: usize = 0;
/// Class of the tables for the others.
pub(crate) const AC: usize = 1;

/// Codes of a table as the file has them: how many of each length, and their bytes.
type Codes = ([u8; 16], Vec<u8>);

/// Longest difference of two first coefficients; one of lossless samples has a bit more.
const MAX_DC_BITS: u8 = 15;

/// Tables that scans refer to.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    quantization: [Option<[u16; 64]>; 4],
    /// First DC, then AC.
    codes: [[Option<Codes>; 4]; 2],
    /// Units between restarts; 0 if there are none.
    pub(crate) restart_interval: usize,
}

impl Tables {
    /// Takes up a table, if the segment is one.
    pub(crate) fn take_up(&mut self, marker: u8, mut body: &[u8]) -> Result<(), JpegError> {
        let short = JpegError::Damaged("a table is shorter than it says");
        match marker {
            DQT => {
                while let Some((kind, rest)) = body.split_first() {
                    let (wide, place) = (kind >> 4, usize::from(kind & 15));
                    let n_bytes = if wide == 0 { 64 } else { 128 };
                    let values = rest.get(..n_bytes).ok_or(short)?;
                    let mut table = [0; 64];
                    for (zigzag, natural) in NATURAL.iter().enumerate() {
                        table[usize::from(*natural)] = if wide == 0 {
                            u16::from(values[zigzag])
                        } else {
                            u16::from_be_bytes([values[2 * zigzag], values[2 * zigzag + 1]])
                        };
                    }
                    let slot = self.quantization.get_mut(place);
                    *slot
                        .ok_or(JpegError::Damaged("a quantization table has a number over 3"))? =
                        Some(table);
                    body = &rest[n_bytes..];
                }
            }
            DHT => {
                while let Some((kind, rest)) = body.split_first() {
                    let counts = *rest.first_chunk::<16>().ok_or(short)?;
                    let n_bytes: usize = counts.iter().map(|n| usize::from(*n)).sum();
                    if n_bytes > 256 {
                        return Err(JpegError::Damaged("a table has more than 256 codes"));
                    }
                    let bytes = rest[16..].get(..n_bytes).ok_or(short)?;
                    let slot = self.codes.get_mut(usize::from(kind >> 4));
                    let slot = slot.and_then(|slots| slots.get_mut(usize::from(kind & 15)));
                    *slot.ok_or(JpegError::Damaged("a table of codes has an unknown number"))? =
                        Some((counts, bytes.to_vec()));
                    body = &rest[16 + n_bytes..];
                }
            }
            DRI => {
                let &[high, low] = body else {
                    return Err(JpegError::Damaged("a restart interval is not of 2 bytes"));
                };
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            _ => {}
        }
        Ok(())
    }

    /// The quantization table of this number, in natural order.
    pub(crate) fn quantization(&self, place: usize) -> Result<[u16; 64], JpegError> {
        let table = self.quantization.get(place).copied().flatten();
        table.ok_or(JpegError::Damaged("a scan needs a quantization table that is not there"))
    }

    /// Gives a sequential file the standard tables that it leaves out, as frames of Motion-JPEG do (libjpeg-turbo
    /// `jstdhuff.c`).
    pub(crate) fn complete(&mut self) {
        for (class, slots) in self.codes.iter_mut().enumerate() {
            for (place, slot) in slots.iter_mut().take(2).enumerate() {
                slot.get_or_insert_with(|| {
                    let (counts, bytes) = standard::codes(class, place);
                    (counts, bytes.to_vec())
                });
            }
        }
    }

    /// The codes of a class ([`DC`] or [`AC`]) and number.
    pub(crate) fn huffman(
        &self,
        class: usize,
        place: usize,
        usage: Use,
    ) -> Result<Huffman, JpegError> {
        let codes = self.codes[class].get(place).and_then(Option::as_ref);
        let (counts, bytes) =
            codes.ok_or(JpegError::Damaged("a scan needs a table of codes that is not there"))?;
        let max = if usage == Use::Differences { MAX_DC_BITS + 1 } else { MAX_DC_BITS };
        if class == DC && bytes.iter().any(|size| *size > max) {
            return Err(JpegError::Damaged("a difference has more bits than the process allows"));
        }
        Huffman::new(counts, bytes, usage)
    }
}
