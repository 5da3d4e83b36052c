//! Why a JPEG is refused.

use crate::Region;

/// Why a JPEG is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JpegError {
    /// The file ends before its picture does.
    #[error("JPEG is truncated: the data ends before the end of the picture")]
    Truncated,
    /// Something contradicts the format; the text says what.
    #[error("JPEG is damaged: {0}")]
    Damaged(&'static str),
    /// A feature, which the text names, is not decoded.
    #[error("JPEG has {0}, which is not decoded; save it as a baseline or progressive JPEG")]
    Unsupported(&'static str),
    /// The region reaches past the picture or has no pixels.
    #[error(
        "region of {}x{} pixels at row {}, column {} is not within the JPEG of {width}x{height} pixels",
        region.width, region.height, region.top, region.left
    )]
    RegionOutside {
        /// The region asked for.
        region: Region,
        /// Pixels in a row of the picture.
        width: u32,
        /// Rows of the picture.
        height: u32,
    },
}
