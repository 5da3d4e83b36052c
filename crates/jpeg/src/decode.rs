//! From a file whose header was read to pixels.

use crate::frame::Frame;
use crate::header::Jpeg;
use crate::scan::{CodedData, scan_header};
use crate::segments::{DNL, EOI, SOF0, SOF2, SOS};
use crate::{BelowRegion, JpegError, Region, color, progressive, sequential};

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
    let Jpeg { mut rest, mut tables, .. } = jpeg;
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    let mut seen = vec![false; frame.planes.len()];
    loop {
        let (marker, body) = rest.next()?;
        match marker {
            EOI => break,
            SOS => {
                rest.take_coded(&mut data, &mut ends)?;
                let coded = CodedData { data: &data, ends: &ends };
                let scan = scan_header(body, &tables, frame, coded)?;
                for (plane, ..) in &scan.parts {
                    seen[*plane] |= scan.band.0 == 0;
                }
                if frame.is_progressive {
                    progressive::read(&scan, frame)?;
                } else {
                    sequential::read(&scan, frame)?;
                }
            }
            SOF0..=SOF2 => return Err(JpegError::Damaged("there is a second frame header")),
            DNL => return Err(JpegError::Unsupported("a height that follows the picture")),
            _ => tables.take_up(marker, body)?,
        }
        // A sequential picture is whole once each component had its scan; what follows is not needed.
        if !frame.is_progressive && seen.iter().all(|seen| *seen) {
            return Ok(());
        }
    }
    if !seen.iter().all(|seen| *seen) {
        return Err(JpegError::Damaged("a component has no scan"));
    }
    progressive::finish(frame);
    Ok(())
}
