//! Damaged files: an error that says what is wrong, or a picture; never a panic.
#![expect(clippy::unwrap_used, reason = "the golden files are there")]

#[path = "../../../tests/jpeg_files.rs"]
mod jpeg_files;

use jpeg_files::{file, find};
use moco_jpeg::{BelowRegion, JpegError, Region, decode, read_header};

/// A header that promises more than this is not followed.
const MAX_PIXELS: u64 = 1 << 20;

/// The number of pixels, and the pixels if they are few.
fn pixels(file: &[u8], below: BelowRegion) -> Result<(u64, Option<Vec<u8>>), JpegError> {
    let jpeg = read_header(file)?;
    let n_pixels = u64::from(jpeg.width) * u64::from(jpeg.height);
    let whole = Region::whole(jpeg.width, jpeg.height);
    let pixels = (n_pixels <= MAX_PIXELS).then(|| decode(jpeg, whole, below)).transpose()?;
    Ok((n_pixels, pixels))
}

#[test]
fn a_byte_changed_anywhere_never_panics() {
    for name in ["waves_420", "waves_progressive", "waves_restart", "cmyk"] {
        let good = file(name);
        for at in (2..good.len()).step_by(3) {
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= change;
                for below in [BelowRegion::Read, BelowRegion::Skip] {
                    if let Ok((n_pixels, Some(pixels))) = pixels(&bad, below) {
                        assert_eq!(pixels.len() as u64, 3 * n_pixels, "{name} {at} {change}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_scan_that_ends_early_is_an_error() {
    for name in ["waves_420", "waves_progressive", "waves_restart", "gray"] {
        let mut bad = file(name);
        let scan = find(&bad, 0xda);
        bad.drain(scan + 40..bad.len() - 2);
        let error = pixels(&bad, BelowRegion::Read).unwrap_err();
        assert!(matches!(error, JpegError::Damaged(_) | JpegError::Truncated), "{name}: {error}");
    }
}
