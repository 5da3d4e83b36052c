//! JPEG to RGB with the samples of libjpeg-turbo, to the bit, in safe code.
//!
//! Baseline, extended and progressive Huffman coding of 8-bit samples in 1, 3 or 4 components. The inverse
//! cosine transform is libjpeg's `islow`, chroma is interpolated as its "fancy upsampling" does, and colors
//! are converted in its 16-bit fixed point: the defaults, which Pillow uses. Where libjpeg warns and goes
//! on with a guess (bad codes, missing data), this is an error.
//!
//! What it deliberately lacks: arithmetic coding, lossless and 12-bit files, scaling, orientation.

mod color;
mod frame;
mod huffman;
mod idct;
mod progressive;
mod scan;
mod segments;
mod upsample;

use frame::Frame;
pub(crate) use segments::{Jpeg, read_header};

use crate::{CropBox, Fidelity};

/// Why a JPEG is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file ends before its picture does.
    Truncated,
    /// Something contradicts the format.
    Damaged(&'static str),
    /// A feature that is not decoded.
    Unsupported(&'static str),
}

/// Decodes the pixels of `region`; its rows of RGB, one after another. Fast does not look at what lies
/// below the region, and so misses damage there.
pub(crate) fn decode(
    jpeg: Jpeg<'_>,
    region: &CropBox,
    fidelity: Fidelity,
) -> Result<Vec<u8>, Fault> {
    let mut frame = Frame::new(&jpeg, region, fidelity);
    segments::read_scans(jpeg, &mut frame)?;
    Ok(color::to_rgb(&frame))
}
