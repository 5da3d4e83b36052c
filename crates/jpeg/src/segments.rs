//! The segments of a JPEG file (T.81, annex B), in any order: a marker and what belongs to it.

use crate::JpegError;

pub(crate) const SOF0: u8 = 0xc0;
pub(crate) const SOF2: u8 = 0xc2;
pub(crate) const DHT: u8 = 0xc4;
pub(crate) const EOI: u8 = 0xd9;
pub(crate) const SOS: u8 = 0xda;
pub(crate) const DQT: u8 = 0xdb;
pub(crate) const DNL: u8 = 0xdc;
pub(crate) const DRI: u8 = 0xdd;
pub(crate) const APP0: u8 = 0xe0;
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
                // Stuffing, restarts and parameterless markers outside a scan mean nothing.
                0x00 | 0x01 | 0xd0..=0xd8 => self.at += skipped + 2,
                EOI => {
                    self.at += skipped + 2;
                    return Ok((EOI, &[]));
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

    /// Takes the entropy-coded data that follows a scan's header, without its stuffing, and notes where each
    /// restart interval ends.
    pub(crate) fn take_coded(
        &mut self,
        data: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Result<(), JpegError> {
        let rest = &self.file[self.at..];
        data.clear();
        data.reserve(rest.len());
        ends.clear();
        self.at += unstuff(rest, data, ends)?;
        Ok(())
    }
}

/// Copies entropy-coded data without its stuffing and notes where each restart interval ends. Returns
/// the length up to the next marker.
fn unstuff(file: &[u8], data: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<usize, JpegError> {
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
            0xd0..=0xd7 => {
                ends.push(data.len());
                at += n + 2;
            }
            0xff => at += n + 1,
            _ => {
                ends.push(data.len());
                return Ok(at + n);
            }
        }
    }
}
