//! The segments of a JPEG file (T.81, annex B), in any order: a marker and what belongs to it.

use crate::JpegError;

pub(crate) const SOF0: u8 = 0xc0;
pub(crate) const SOF2: u8 = 0xc2;
pub(crate) const SOF3: u8 = 0xc3;
pub(crate) const SOF15: u8 = 0xcf;
pub(crate) const DHT: u8 = 0xc4;
pub(crate) const DAC: u8 = 0xcc;
pub(crate) const RST0: u8 = 0xd0;
pub(crate) const RST7: u8 = 0xd7;
pub(crate) const SOI: u8 = 0xd8;
pub(crate) const EOI: u8 = 0xd9;
pub(crate) const SOS: u8 = 0xda;
pub(crate) const DQT: u8 = 0xdb;
pub(crate) const DRI: u8 = 0xdd;
pub(crate) const DHP: u8 = 0xde;
pub(crate) const EXP: u8 = 0xdf;
pub(crate) const APP0: u8 = 0xe0;
pub(crate) const APP1: u8 = 0xe1;
pub(crate) const APP2: u8 = 0xe2;
pub(crate) const APP14: u8 = 0xee;

/// Those of a file, one after another.
#[derive(Debug)]
pub(crate) struct Segments<'a> {
    file: &'a [u8],
    /// Where the next one begins.
    at: usize,
}

impl<'a> Segments<'a> {
    /// Those after the marker that a file begins with.
    pub(crate) fn of(file: &'a [u8]) -> Self {
        Self { file, at: 2 }
    }

    /// The next marker and what its segment holds.
    pub(crate) fn next(&mut self) -> Result<(u8, &'a [u8]), JpegError> {
        loop {
            let rest = self.file.get(self.at..).ok_or(JpegError::Truncated)?;
            let skipped = memchr::memchr(0xff, rest).ok_or(JpegError::Truncated)?;
            let marker = *rest.get(skipped + 1).ok_or(JpegError::Truncated)?;
            match marker {
                0xff => self.at += skipped + 1,
                // Stuffing and restarts outside a scan mean nothing.
                0x00 | RST0..=RST7 => self.at += skipped + 2,
                EOI => {
                    self.at += skipped + 2;
                    return Ok((EOI, &[]));
                }
                SOI => return Err(JpegError::Damaged("there is a second start of image")),
                0x01..SOF0 | 0xc8 | 0xf0..=0xfd => {
                    return Err(JpegError::Damaged("there is a marker that the format reserves"));
                }
                _ => {
                    let length = rest.get(skipped + 2..skipped + 4).ok_or(JpegError::Truncated)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    if length < 2 {
                        return Err(JpegError::Damaged(
                            "a segment is shorter than its own length field",
                        ));
                    }
                    let body =
                        rest.get(skipped + 4..skipped + 2 + length).ok_or(JpegError::Truncated)?;
                    self.at += skipped + 2 + length;
                    return Ok((marker, body));
                }
            }
        }
    }

    /// Whether another marker follows.
    pub(crate) fn has_marker(&self) -> bool {
        let rest = self.file.get(self.at..).unwrap_or_default();
        rest.windows(2).any(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))
    }

    /// Takes the entropy-coded data that follows a scan's header.
    pub(crate) fn take_coded(&mut self, coded: &mut CodedData) -> Result<(), JpegError> {
        let rest = &self.file[self.at..];
        coded.data.clear();
        coded.data.reserve(rest.len());
        coded.ends.clear();
        self.at += unstuff(rest, coded)?;
        Ok(())
    }
}

/// Entropy-coded data without stuffing, one piece a restart interval.
#[derive(Debug, Default)]
pub(crate) struct CodedData {
    pub(crate) data: Vec<u8>,
    pub(crate) ends: Vec<IntervalEnd>,
}

/// The end of a restart interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntervalEnd {
    /// Bytes before it.
    pub(crate) at: usize,
    /// The marker that ends it: a restart, or whatever ends the scan.
    pub(crate) marker: u8,
}

/// Copies entropy-coded data without its stuffing and notes where each restart interval ends. Returns
/// the length up to the next marker.
fn unstuff(file: &[u8], coded: &mut CodedData) -> Result<usize, JpegError> {
    let CodedData { data, ends } = coded;
    let mut at = 0;
    loop {
        let rest = &file[at..];
        let n = memchr::memchr(0xff, rest).ok_or(JpegError::Truncated)?;
        data.extend_from_slice(&rest[..n]);
        match *rest.get(n + 1).ok_or(JpegError::Truncated)? {
            0x00 => {
                data.push(0xff);
                at += n + 2;
            }
            marker @ RST0..=RST7 => {
                ends.push(IntervalEnd { at: data.len(), marker });
                at += n + 2;
            }
            0xff => at += n + 1,
            marker => {
                ends.push(IntervalEnd { at: data.len(), marker });
                return Ok(at + n);
            }
        }
    }
}
