//! From a file whose header was read to pixels.

use crate::frame::Frame;
use crate::header::{Jpeg, Process, check};
use crate::scan::scan_header;
use crate::segments::{CodedData, EOI, SOF0, SOF3, SOS, Segments};
use crate::tables::Tables;
use crate::{BelowRegion, JpegError, Region, color, lossless, progressive, sequential};

/// Decodes the pixels of `region`: its rows of RGB, one after another.
///
/// Memory is taken for the whole picture, of whatever size its header promises; the caller checks that
/// before.
///
/// # Errors
/// If the region is not within the picture, or the file is truncated, damaged or not of a kind that is
/// decoded.
pub fn decode(jpeg: Jpeg<'_>, region: Region, below: BelowRegion) -> Result<Vec<u8>, JpegError> {
    let Jpeg { width, height, .. } = jpeg;
    if !region.is_within(width, height) {
        return Err(JpegError::RegionOutside { region, width, height });
    }
    let mut frame = Frame::new(&jpeg, region, below);
    read_scans(jpeg, &mut frame)?;
    Ok(color::to_rgb(&frame))
}

/// Reads every scan into the planes.
fn read_scans(jpeg: Jpeg<'_>, frame: &mut Frame) -> Result<(), JpegError> {
    let has_several_scans = jpeg.has_several_scans() || jpeg.process == Process::Progressive;
    let Jpeg { first_scan, mut rest, mut tables, .. } = jpeg;
    let mut coded = CodedData::default();
    let mut body = first_scan;
    loop {
        rest.take_coded(&mut coded)?;
        let scan = scan_header(body, &tables, frame, &coded)?;
        match frame.process {
            Process::Sequential => sequential::read(&scan, frame)?,
            Process::Progressive => progressive::read(&scan, frame)?,
            Process::Lossless => lossless::read(&scan, frame)?,
        }
        if !has_several_scans {
            return match frame.below {
                BelowRegion::Read => read_rest(rest, tables),
                BelowRegion::Skip => Ok(()),
            };
        }
        match next_scan(&mut rest, &mut tables)? {
            Some(next) => body = next,
            None => break,
        }
    }
    if frame.keeps_coefficients {
        progressive::finish(frame);
    } else if frame.planes.iter().any(|plane| !plane.has_scan) {
        return Err(JpegError::Damaged("a component of a lossless picture has no scan"));
    }
    Ok(())
}

/// Takes up the segments before the next scan and returns its header, or nothing at the end of the picture.
fn next_scan<'a>(
    rest: &mut Segments<'a>,
    tables: &mut Tables,
) -> Result<Option<&'a [u8]>, JpegError> {
    loop {
        let (marker, body) = rest.next()?;
        match marker {
            EOI => return Ok(None),
            SOS => return Ok(Some(body)),
            SOF0..=SOF3 => {
                return Err(JpegError::Damaged("there is a second frame header"));
            }
            _ => tables.take_up(marker, body)?,
        }
        check(marker, body)?;
    }
}

/// What follows the only scan: it is not needed, and may end early, but must not contradict the format.
fn read_rest(mut rest: Segments<'_>, mut tables: Tables) -> Result<(), JpegError> {
    match next_scan(&mut rest, &mut tables) {
        Ok(None) => Ok(()),
        Err(JpegError::Truncated) if !rest.has_marker() => Ok(()),
        Ok(Some(_)) => Err(JpegError::Damaged("a scan follows that of all components")),
        Err(error) => Err(error),
    }
}
