//! The header of a JPEG file: the size of the picture and its components.

use crate::JpegError;
use crate::segments::{APP0, APP14, EOI, SOF0, SOF2, SOS, Segments};
use crate::tables::Tables;

/// A JPEG file whose frame header was read.
#[derive(Debug)]
pub struct Jpeg<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    pub(crate) components: Vec<Component>,
    pub(crate) transform: Transform,
    pub(crate) is_progressive: bool,
    /// What follows the header.
    pub(crate) rest: Segments<'a>,
    /// Those of the header.
    pub(crate) tables: Tables,
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

/// Reads a file up to its frame header, whatever the size that the header promises.
///
/// # Errors
/// If there is no such header, or it describes a picture that is not decoded.
pub fn read_header(file: &[u8]) -> Result<Jpeg<'_>, JpegError> {
    let mut rest = Segments::of(file);
    let mut tables = Tables::default();
    let (mut jfif, mut adobe) = (None, None);
    loop {
        let (marker, body) = rest.next()?;
        match marker {
            SOF0..=SOF2 => {
                let (width, height, components) = frame_header(body)?;
                let transform = transform(&components, jfif, adobe);
                let is_progressive = marker == SOF2;
                return Ok(Jpeg {
                    width,
                    height,
                    components,
                    transform,
                    is_progressive,
                    rest,
                    tables,
                });
            }
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(JpegError::Unsupported("lossless, hierarchical or arithmetic coding"));
            }
            SOS => return Err(JpegError::Damaged("a scan comes before the frame header")),
            EOI => return Err(JpegError::Damaged("there is no picture")),
            APP0 if body.starts_with(b"JFIF\0") => jfif = Some(Jfif),
            APP14 if body.starts_with(b"Adobe") => adobe = body.get(11).copied().or(adobe),
            _ => tables.take_up(marker, body)?,
        }
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
    let components: Vec<Component> = rest
        .as_chunks::<3>()
        .0
        .iter()
        .take(usize::from(*n))
        .map(|[id, factors, table]| Component {
            id: *id,
            h: usize::from(factors >> 4),
            v: usize::from(factors & 15),
            table: usize::from(*table),
        })
        .collect();
    if components.len() != usize::from(*n) {
        return Err(JpegError::Damaged("the frame header is short"));
    }
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
fn transform(components: &[Component], jfif: Option<Jfif>, adobe: Option<u8>) -> Transform {
    match components.len() {
        1 => Transform::Gray,
        3 => {
            let ids = [0, 1, 2].map(|i: usize| components[i].id);
            match (jfif, adobe) {
                (None, Some(0)) => Transform::Rgb,
                (None, None) if &ids == b"RGB" => Transform::Rgb,
                _ => Transform::Ycc,
            }
        }
        _ if matches!(adobe, None | Some(0)) => Transform::Cmyk,
        _ => Transform::Ycck,
    }
}
