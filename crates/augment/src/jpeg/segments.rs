//! The segments of a JPEG file (T.81, annex B): the header, then tables and scans in any order.

use super::frame::{Frame, SIDE};
use super::huffman::{Huffman, Use};
use super::{Fault, progressive, scan};

/// Natural order of the coefficients, which the file has in zigzag order.
pub(super) const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

const SOF0: u8 = 0xc0;
const SOF2: u8 = 0xc2;
const DHT: u8 = 0xc4;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DNL: u8 = 0xdc;
const DRI: u8 = 0xdd;
const APP0: u8 = 0xe0;
const APP14: u8 = 0xee;

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
pub(super) struct Component {
    pub(super) id: u8,
    pub(super) h: usize,
    pub(super) v: usize,
    pub(super) table: usize,
}

/// Codes of a table as the file has them.
type Codes = ([u8; 16], Vec<u8>);

/// Tables that scans refer to.
#[derive(Debug, Default)]
struct Tables {
    quantization: [Option<[u16; 64]>; 4],
    /// First DC, then AC.
    codes: [[Option<Codes>; 4]; 2],
    restart_interval: usize,
}

/// A JPEG file whose frame header was read.
#[derive(Debug)]
pub(crate) struct Jpeg<'a> {
    /// Pixels in a row.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
    pub(super) components: Vec<Component>,
    pub(super) transform: Transform,
    pub(super) is_progressive: bool,
    rest: Segments<'a>,
    tables: Tables,
}

/// One after another.
#[derive(Debug)]
struct Segments<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// The next marker and what its segment holds.
    fn next(&mut self) -> Result<(u8, &'a [u8]), Fault> {
        loop {
            let rest = self.file.get(self.at..).ok_or(Fault::Truncated)?;
            let skipped = memchr::memchr(0xff, rest).ok_or(Fault::Truncated)?;
            let marker = *rest.get(skipped + 1).ok_or(Fault::Truncated)?;
            match marker {
                0xff => self.at += skipped + 1,
                // Stuffing, restarts and parameterless markers outside a scan mean nothing.
                0x00 | 0x01 | 0xd0..=0xd8 => self.at += skipped + 2,
                EOI => {
                    self.at += skipped + 2;
                    return Ok((EOI, &[]));
                }
                _ => {
                    let length = rest.get(skipped + 2..skipped + 4).ok_or(Fault::Truncated)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    if length < 2 {
                        return Err(Fault::Damaged(
                            "a segment is shorter than its own length field",
                        ));
                    }
                    let body =
                        rest.get(skipped + 4..skipped + 2 + length).ok_or(Fault::Truncated)?;
                    self.at += skipped + 2 + length;
                    return Ok((marker, body));
                }
            }
        }
    }
}

impl Tables {
    /// Takes up a table, if the segment is one.
    fn take_up(&mut self, marker: u8, mut body: &[u8]) -> Result<(), Fault> {
        let short = Fault::Damaged("a table is shorter than it says");
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
                    *slot.ok_or(Fault::Damaged("a quantization table has a number over 3"))? =
                        Some(table);
                    body = &rest[n_bytes..];
                }
            }
            DHT => {
                while let Some((kind, rest)) = body.split_first() {
                    let counts = *rest.first_chunk::<16>().ok_or(short)?;
                    let n_bytes = counts.iter().map(|n| usize::from(*n)).sum();
                    let bytes = rest[16..].get(..n_bytes).ok_or(short)?;
                    let slot = self.codes.get_mut(usize::from(kind >> 4));
                    let slot = slot.and_then(|slots| slots.get_mut(usize::from(kind & 15)));
                    *slot.ok_or(Fault::Damaged("a table of codes has an unknown number"))? =
                        Some((counts, bytes.to_vec()));
                    body = &rest[16 + n_bytes..];
                }
            }
            DRI => {
                let interval = body.first_chunk::<2>().ok_or(short)?;
                self.restart_interval = usize::from(u16::from_be_bytes(*interval));
            }
            _ => {}
        }
        Ok(())
    }

    fn huffman(&self, class: usize, place: usize, usage: Use) -> Result<Huffman, Fault> {
        let codes = self.codes[class].get(place).and_then(Option::as_ref);
        let (counts, bytes) =
            codes.ok_or(Fault::Damaged("a scan needs a table of codes that is not there"))?;
        Huffman::new(counts, bytes, usage)
    }
}

/// Reads up to the frame header, whatever the size it promises.
pub(crate) fn read_header(file: &[u8]) -> Result<Jpeg<'_>, Fault> {
    let mut rest = Segments { file, at: 2 };
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
                return Err(Fault::Unsupported("lossless, hierarchical or arithmetic coding"));
            }
            SOS => return Err(Fault::Damaged("a scan comes before the frame header")),
            EOI => return Err(Fault::Damaged("there is no picture")),
            APP0 if body.starts_with(b"JFIF\0") => jfif = Some(Jfif),
            APP14 if body.starts_with(b"Adobe") => adobe = body.get(11).copied().or(adobe),
            _ => tables.take_up(marker, body)?,
        }
    }
}

fn frame_header(body: &[u8]) -> Result<(u32, u32, Vec<Component>), Fault> {
    let [precision, h1, h0, w1, w0, n, rest @ ..] = body else {
        return Err(Fault::Damaged("the frame header is short"));
    };
    if *precision != 8 {
        return Err(Fault::Unsupported("samples of more than 8 bits"));
    }
    let (height, width) = (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
    if width == 0 || height == 0 {
        return Err(Fault::Damaged("the frame header has a side of 0"));
    }
    if !matches!(n, 1 | 3 | 4) {
        return Err(Fault::Unsupported("a number of components other than 1, 3 and 4"));
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
        return Err(Fault::Damaged("the frame header is short"));
    }
    if components.iter().any(|c| !(1..=4).contains(&c.h) || !(1..=4).contains(&c.v)) {
        return Err(Fault::Damaged("a sampling factor is not from 1 to 4"));
    }
    let max = |get: fn(&Component) -> usize| components.iter().map(get).max().unwrap_or(1);
    let (h, v) = (max(|c| c.h), max(|c| c.v));
    if components.iter().any(|c| h % c.h != 0 || v % c.v != 0) {
        return Err(Fault::Unsupported("sampling factors that do not divide one another"));
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

/// Index of a plane, and its DC and AC tables where the scan has such codes.
pub(super) type Part = (usize, Option<Huffman>, Option<Huffman>);

/// What a scan holds of which planes.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) parts: Vec<Part>,
    /// First and last coefficient in zigzag order.
    pub(super) band: (usize, usize),
    /// Bit positions before and after this scan.
    pub(super) high: u8,
    pub(super) low: u8,
    /// Units between restarts; 0 if there are none.
    pub(super) restart_interval: usize,
    /// Entropy-coded data without stuffing, one piece a restart interval.
    pub(super) data: &'a [u8],
    pub(super) ends: &'a [usize],
}

/// Reads every scan into the planes.
pub(super) fn read_scans(jpeg: Jpeg<'_>, frame: &mut Frame) -> Result<(), Fault> {
    let Jpeg { mut rest, mut tables, .. } = jpeg;
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    let mut seen = vec![false; frame.planes.len()];
    loop {
        let (marker, body) = rest.next()?;
        match marker {
            EOI => break,
            SOS => {
                let n_left = rest.file.len() - rest.at;
                data.clear();
                data.reserve(n_left);
                ends.clear();
                rest.at += unstuff(&rest.file[rest.at..], &mut data, &mut ends)?;
                let scan = scan_header(body, &tables, frame, (&data, &ends))?;
                for (plane, ..) in &scan.parts {
                    seen[*plane] |= scan.band.0 == 0;
                }
                if frame.is_progressive {
                    progressive::read(&scan, frame)?;
                } else {
                    scan::read(&scan, frame)?;
                }
            }
            SOF0..=SOF2 => return Err(Fault::Damaged("there is a second frame header")),
            DNL => return Err(Fault::Unsupported("a height that follows the picture")),
            _ => tables.take_up(marker, body)?,
        }
        // A sequential picture is whole once each component had its scan; what follows is not needed.
        if !frame.is_progressive && seen.iter().all(|seen| *seen) {
            return Ok(());
        }
    }
    if !seen.iter().all(|seen| *seen) {
        return Err(Fault::Damaged("a component has no scan"));
    }
    progressive::finish(frame);
    Ok(())
}

fn scan_header<'a>(
    body: &[u8],
    tables: &Tables,
    frame: &mut Frame,
    (data, ends): (&'a [u8], &'a [usize]),
) -> Result<Scan<'a>, Fault> {
    let short = Fault::Damaged("a scan header is short");
    let (n, rest) = body.split_first().ok_or(short)?;
    let (selectors, rest) = rest.split_at_checked(2 * usize::from(*n)).ok_or(short)?;
    let [first, last, bits, ..] = rest else { return Err(short) };
    let (first, last) = (usize::from(*first), usize::from(*last));
    let (high, low) = (bits >> 4, bits & 15);
    let (band, usage) = if frame.is_progressive {
        ((first, last), Use::Bytes)
    } else {
        ((0, 63), Use::Coefficients)
    };
    let is_valid = !frame.is_progressive
        || (first <= last
            && last < 64
            && low <= 13
            && (first > 0 || last == 0)
            && (first == 0 || *n == 1));
    if !is_valid || *n == 0 || usize::from(*n) > frame.planes.len() {
        return Err(Fault::Damaged("a scan header contradicts itself"));
    }
    let mut parts: Vec<Part> = Vec::new();
    for [id, places] in selectors.as_chunks::<2>().0 {
        let index = frame.planes.iter().position(|plane| plane.id == *id);
        let index = index.ok_or(Fault::Damaged("a scan names an unknown component"))?;
        if parts.iter().any(|(other, ..)| *other == index) {
            return Err(Fault::Damaged("a scan names a component twice"));
        }
        let plane = &mut frame.planes[index];
        if plane.quantization.is_none() {
            let table = tables.quantization.get(plane.table).copied().flatten();
            plane.quantization = Some(
                table
                    .ok_or(Fault::Damaged("a scan needs a quantization table that is not there"))?,
            );
        }
        let needs_dc = band.0 == 0 && high == 0;
        let dc =
            needs_dc.then(|| tables.huffman(0, usize::from(places >> 4), usage)).transpose()?;
        let ac =
            (band.1 > 0).then(|| tables.huffman(1, usize::from(places & 15), usage)).transpose()?;
        parts.push((index, dc, ac));
    }
    let units: usize = parts.iter().map(|(i, ..)| frame.planes[*i].h * frame.planes[*i].v).sum();
    if parts.len() > 1 && units > 10 {
        return Err(Fault::Damaged("a unit has more than 10 blocks"));
    }
    let restart_interval = tables.restart_interval;
    Ok(Scan { parts, band, high, low, restart_interval, data, ends })
}

/// Copies entropy-coded data without its stuffing and notes where each restart interval ends. Returns
/// the length up to the marker behind.
fn unstuff(file: &[u8], data: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<usize, Fault> {
    let mut at = 0;
    loop {
        let rest = &file[at..];
        let n = memchr::memchr(0xff, rest).ok_or(Fault::Truncated)?;
        data.extend_from_slice(&rest[..n]);
        match *rest.get(n + 1).ok_or(Fault::Truncated)? {
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

/// Samples of a plane from which a block's start; used by both kinds of scan.
pub(super) fn sample_offset(stride: usize, bx: usize, by: usize) -> usize {
    SIDE * (by * stride + bx)
}
