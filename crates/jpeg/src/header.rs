//! The header of a JPEG file: the size of the picture and its components.

use crate::JpegError;
use crate::exif::has_readable_resolution;
use crate::segments::{
    APP0, APP1, APP2, APP14, DAC, DHP, EOI, EXP, SOF0, SOF2, SOF3, SOF15, SOS, Segments,
};
use crate::tables::Tables;

/// A JPEG file that was read up to its first scan.
#[derive(Debug)]
pub struct Jpeg<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    pub(crate) components: Vec<Component>,
    pub(crate) transform: Transform,
    pub(crate) process: Process,
    /// The header of the first scan.
    pub(crate) first_scan: &'a [u8],
    /// What follows it.
    pub(crate) rest: Segments<'a>,
    /// Those that come before it.
    pub(crate) tables: Tables,
}

impl Jpeg<'_> {
    /// Whether the first scan leaves components to others.
    pub(crate) fn has_several_scans(&self) -> bool {
        let n_parts = self.first_scan.first().copied().unwrap_or_default();
        usize::from(n_parts) < self.components.len()
    }
}

/// How a picture is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// Blocks of coefficients, each complete in its scan.
    Sequential,
    /// Blocks of coefficients, of which each scan brings some bits.
    Progressive,
    /// Differences of samples.
    Lossless,
}

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Gray.
    Gray,
    /// Red, green and blue.
    Rgb,
    /// Luma and two differences.
    Ycc,
    /// Cyan, magenta, yellow and black, stored inverted.
    Cmyk,
    /// The first three of CMYK as luma and differences.
    Ycck,
}

/// A component as the frame header describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Component {
    pub(crate) id: u8,
    pub(crate) h: usize,
    pub(crate) v: usize,
    pub(crate) table: usize,
}

/// Reads a file up to its first scan, whatever the size that its frame header promises.
///
/// # Errors
/// If there are no such headers, or they describe a picture that is not decoded.
pub fn read_header(file: &[u8]) -> Result<Jpeg<'_>, JpegError> {
    let mut rest = Segments::of(file);
    let mut tables = Tables::default();
    let (mut jfif, mut adobe, mut frame) = (None, None, None);
    let first_scan = loop {
        let (marker, body) = rest.next()?;
        match marker {
            SOS => break body,
            SOF0..=SOF3 => {
                if frame.is_some() {
                    return Err(JpegError::Damaged("there is a second frame header"));
                }
                frame = Some((marker, frame_header(body)?));
            }
            EOI => return Err(JpegError::Damaged("there is no picture")),
            APP0 if body.starts_with(b"JFIF\0") && body.len() >= 14 => jfif = Some(Jfif),
            APP14 if body.starts_with(b"Adobe") && body.len() >= 12 => adobe = Some(body[11]),
            _ => tables.take_up(marker, body)?,
        }
        check(marker, body)?;
    };
    let before = JpegError::Damaged("a scan comes before the frame header");
    let (marker, (width, height, components)) = frame.ok_or(before)?;
    let process = match marker {
        SOF2 => Process::Progressive,
        SOF3 => Process::Lossless,
        _ => Process::Sequential,
    };
    let transform = transform(&components, process, jfif, adobe);
    if process == Process::Lossless && matches!(transform, Transform::Ycc | Transform::Ycck) {
        return Err(JpegError::Unsupported("lossless coding of luma and differences"));
    }
    if process == Process::Sequential {
        tables.complete();
    }
    Ok(Jpeg { width, height, components, transform, process, first_scan, rest, tables })
}

/// Refuses what no segment of a picture's header, or between its scans, may be.
pub(crate) fn check(marker: u8, body: &[u8]) -> Result<(), JpegError> {
    let is_short = |name: &[u8], length: usize| body.starts_with(name) && body.len() < length;
    let damaged = |reason| Err(JpegError::Damaged(reason));
    let unsupported = |feature| Err(JpegError::Unsupported(feature));
    match marker {
        DAC | 0xc9..=0xcb => unsupported("arithmetic coding"),
        0xc5..=0xc7 | 0xcd..=SOF15 | DHP | EXP => unsupported("hierarchical coding"),
        // Pillow reads these before libjpeg does, and stops where they break off.
        APP0 if is_short(b"JFIF", 7) => damaged("a JFIF segment is short"),
        APP1 if !has_readable_resolution(body) => {
            damaged("the resolution in a segment of Exif is no number")
        }
        APP2 if is_short(b"ICC_PROFILE\0", 14) => damaged("a segment of a color profile is short"),
        APP14 if is_short(b"Adobe", 7) => damaged("an Adobe segment is short"),
        _ => Ok(()),
    }
}

fn frame_header(body: &[u8]) -> Result<(u32, u32, Vec<Component>), JpegError> {
    let [precision, h1, h0, w1, w0, n, rest @ ..] = body else {
        return Err(JpegError::Damaged("the frame header is short"));
    };
    if *precision != 8 {
        return Err(JpegError::Unsupported("samples of more than 8 bits"));
    }
    let (height, width) = (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
    if width == 0 || height == 0 {
        return Err(JpegError::Damaged("the frame header has a side of 0"));
    }
    if !matches!(n, 1 | 3 | 4) {
        return Err(JpegError::Unsupported("a number of components other than 1, 3 and 4"));
    }
    if rest.len() != 3 * usize::from(*n) {
        return Err(JpegError::Damaged("the frame header has another length than its components"));
    }
    let components: Vec<Component> = rest
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[id, factors, table]| Component {
            id: *id,
            h: usize::from(factors >> 4),
            v: usize::from(factors & 15),
            table: usize::from(*table),
        })
        .collect();
    if components.iter().any(|c| !(1..=4).contains(&c.h) || !(1..=4).contains(&c.v)) {
        return Err(JpegError::Damaged("a sampling factor is not from 1 to 4"));
    }
    let max = |get: fn(&Component) -> usize| components.iter().map(get).max().unwrap_or(1);
    let (h, v) = (max(|c| c.h), max(|c| c.v));
    if components.iter().any(|c| h % c.h != 0 || v % c.v != 0) {
        return Err(JpegError::Unsupported("sampling factors that do not divide one another"));
    }
    Ok((u32::from(width), u32::from(height), components))
}

/// The file has the marker of JFIF, whose colors are luma and differences.
#[derive(Debug, Clone, Copy)]
struct Jfif;

/// Which colors the components are (libjpeg `default_decompress_parms`).
fn transform(
    components: &[Component],
    process: Process,
    jfif: Option<Jfif>,
    adobe: Option<u8>,
) -> Transform {
    match components.len() {
        1 => Transform::Gray,
        3 => {
            let ids = [0, 1, 2].map(|i: usize| components[i].id);
            match (jfif, adobe) {
                (None, Some(0)) => Transform::Rgb,
                (None, None) if &ids == b"RGB" || process == Process::Lossless => Transform::Rgb,
                _ => Transform::Ycc,
            }
        }
        _ if matches!(adobe, None | Some(0)) => Transform::Cmyk,
        _ => Transform::Ycck,
    }
}
