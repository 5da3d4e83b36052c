//! A scan: coded data of some components (T.81, B.2.3).

use std::ops::Range;

use crate::JpegError;
use crate::frame::{Frame, Plane};
use crate::header::Process;
use crate::huffman::{Bits, Huffman, Use};
use crate::segments::{CodedData, RST0, RST7};
use crate::tables::{AC, DC, Tables};

/// Index of a plane, and its DC and AC tables where the scan has such codes.
pub(crate) type Part = (usize, Option<Huffman>, Option<Huffman>);

/// What a scan holds of which planes.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) parts: Vec<Part>,
    /// First and last coefficient in zigzag order.
    pub(crate) band: (usize, usize),
    /// Lossless only: how samples are predicted (T.81, table H.1).
    pub(crate) predictor: usize,
    /// Bit positions before and after this scan.
    pub(crate) high: u8,
    pub(crate) low: u8,
    /// Units between restarts; 0 if there are none.
    pub(crate) restart_interval: usize,
    pub(crate) coded: &'a CodedData,
}

impl Scan<'_> {
    /// Units of the scan in a row, and rows of them.
    pub(crate) fn n_units(&self, frame: &Frame) -> (usize, usize) {
        match (self.parts.as_slice(), frame.process) {
            ([(plane, ..)], Process::Lossless) => {
                (frame.planes[*plane].width, frame.planes[*plane].height)
            }
            ([(plane, ..)], _) => frame.planes[*plane].own_blocks(),
            _ => frame.n_units,
        }
    }
}

/// The units of each restart interval, and their bits.
pub(crate) fn intervals<'a>(
    scan: &'a Scan<'_>,
    frame: &Frame,
) -> impl Iterator<Item = Result<(Range<usize>, Bits<'a>), JpegError>> + use<'a> {
    let (across, down) = scan.n_units(frame);
    let n_units = across * down;
    let interval = if scan.restart_interval == 0 { n_units } else { scan.restart_interval };
    let CodedData { data, ends } = scan.coded;
    let (mut start, mut ends) = (0, ends.iter().zip((RST0..=RST7).cycle()));
    (0..n_units).step_by(interval).map(move |first| {
        let short = JpegError::Damaged("a scan has fewer restart intervals than its picture needs");
        let (end, restart) = ends.next().ok_or(short)?;
        let last = (first + interval).min(n_units);
        if last < n_units && end.marker != restart {
            let is_restart = (RST0..=RST7).contains(&end.marker);
            let unordered = JpegError::Damaged("restart markers do not count from 0 to 7");
            return Err(if is_restart { unordered } else { short });
        }
        let bits = Bits::new(&data[start..end.at]);
        start = end.at;
        Ok((first..last, bits))
    })
}

/// Whether a scan of `n` components may have a band and bits.
fn is_valid(process: Process, n: usize, band: [usize; 2], bits: [u8; 2]) -> bool {
    let ([first, last], [high, low]) = (band, bits);
    match process {
        Process::Sequential => true,
        Process::Progressive => {
            first <= last
                && last < 64
                && low <= 13
                && (high == 0 || low + 1 == high)
                && (first > 0 || last == 0)
                && (first == 0 || n == 1)
        }
        Process::Lossless => (1..=7).contains(&first) && last == 0 && high == 0 && low < 8,
    }
}

/// Reads the header of a scan, whose coded data was taken before; notes the quantization tables of its planes.
pub(crate) fn scan_header<'a>(
    body: &[u8],
    tables: &Tables,
    frame: &mut Frame,
    coded: &'a CodedData,
) -> Result<Scan<'a>, JpegError> {
    let wrong_length = JpegError::Damaged("a scan header has another length than its components");
    let (n, rest) = body.split_first().ok_or(wrong_length)?;
    let (selectors, rest) = rest.split_at_checked(2 * usize::from(*n)).ok_or(wrong_length)?;
    let [first, last, bits] = rest else { return Err(wrong_length) };
    let (first, last) = (usize::from(*first), usize::from(*last));
    let (high, low) = (bits >> 4, bits & 15);
    let (band, usage) = match frame.process {
        Process::Sequential => ((0, 63), Use::Coefficients),
        Process::Progressive => ((first, last), Use::Bytes),
        Process::Lossless => ((0, 0), Use::Differences),
    };
    let is_valid = is_valid(frame.process, usize::from(*n), [first, last], [high, low]);
    if !is_valid || *n == 0 || usize::from(*n) > frame.planes.len() {
        return Err(JpegError::Damaged("a scan header contradicts itself"));
    }
    let mut parts: Vec<Part> = Vec::new();
    for [id, places] in selectors.as_chunks::<2>().0 {
        // Components of equal names are taken in turn, as libjpeg does.
        let named = |(index, plane): &(usize, &Plane)| plane.id == *id && *index >= parts.len();
        let index = frame.planes.iter().enumerate().find(named).map(|(index, _)| index);
        let index = index.ok_or(JpegError::Damaged("a scan names an unknown component"))?;
        if parts.iter().any(|(other, ..)| *other == index) {
            return Err(JpegError::Damaged("a scan names a component twice"));
        }
        let plane = &mut frame.planes[index];
        plane.has_scan = true;
        if plane.quantization.is_none() && frame.process != Process::Lossless {
            plane.quantization = Some(tables.quantization(plane.table)?);
        }
        let needs_dc = band.0 == 0 && (high == 0 || frame.process != Process::Progressive);
        let dc =
            needs_dc.then(|| tables.huffman(DC, usize::from(places >> 4), usage)).transpose()?;
        let ac = (band.1 > 0)
            .then(|| tables.huffman(AC, usize::from(places & 15), usage))
            .transpose()?;
        if frame.process == Process::Progressive {
            plane.unknown_bits[band.0..=band.1].fill(low.cast_signed());
        }
        parts.push((index, dc, ac));
    }
    let units: usize = parts.iter().map(|(i, ..)| frame.planes[*i].h * frame.planes[*i].v).sum();
    if parts.len() > 1 && units > 10 {
        return Err(JpegError::Damaged("a unit has more than 10 blocks"));
    }
    let restart_interval = tables.restart_interval;
    Ok(Scan { parts, band, predictor: first, high, low, restart_interval, coded })
}
