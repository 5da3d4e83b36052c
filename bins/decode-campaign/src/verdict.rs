//! What the program makes of a file, and how that compares with what Pillow makes of it.

use moco_augment::{AugmentError, RgbImage};
use moco_jpeg::{BelowRegion, Region};
use sha2::{Digest as _, Sha256};

use crate::corpus::{Origin, Sample};

/// What a decoder makes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 16 digits of the hash of its pixels.
    Pixels(String),
    /// The reason.
    Refused(String),
}

/// How two decoders agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    SameBits,
    BothRefuse,
    /// Only the program refuses, for a reason that deviation D6 lists.
    Listed,
    /// None of these may happen.
    OtherBits,
    OnlyPillowRefuses,
    /// Only the program refuses, for a reason that is not listed or not allowed for this file.
    NotListed,
}

impl Class {
    pub(crate) const ALL: [Self; 6] = [
        Self::SameBits,
        Self::BothRefuse,
        Self::Listed,
        Self::OtherBits,
        Self::OnlyPillowRefuses,
        Self::NotListed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SameBits => "same bits",
            Self::BothRefuse => "both refuse",
            Self::Listed => "refused, listed",
            Self::OtherBits => "other bits",
            Self::OnlyPillowRefuses => "only Pillow refuses",
            Self::NotListed => "refused, not listed",
        }
    }

    pub(crate) fn is_allowed(self) -> bool {
        matches!(self, Self::SameBits | Self::BothRefuse | Self::Listed)
    }
}

/// The reasons of deviation D6 that a damaged file may be refused for. Those of a JPEG.
pub(crate) const JPEG_REASONS: &[&str] = &[
    "the file ends before its picture does",
    "there is a second start of image",
    "there is a marker that the format reserves",
    "there is no picture",
    "there is a second frame header",
    "a segment is shorter than its own length field",
    "arithmetic coding",
    "hierarchical coding",
    "a segment of a color profile is short",
    "the resolution in a segment of Exif is no number",
    "a scan header has another length than its components",
    "a scan names an unknown component",
    "a code is not in its table",
    "a run of zeros passes the end of its block",
    "the coded data of a scan or restart interval ends before its last block",
    "restart markers do not count from 0 to 7",
    "a scan has fewer restart intervals than its picture needs",
    "the picture is too large",
];
/// Those of a PNG.
pub(crate) const PNG_REASONS: &[&str] = &[
    "the file ends before its picture does",
    "the name of a chunk is not of letters",
    "a later frame comes before the first",
    "the first frame of an animation does not cover the picture",
    "its compressed data ends before the last row",
    "its compressed data ends before its checksum",
    "its data has a wrong checksum",
    "its compressed data repeats bytes from before its start",
    "its compressed data has a code that is not in its table",
    "its compressed data has a block with a wrong header",
    "the picture is too large",
];
/// The reason that a sound file may be refused for.
const SOUND_REASON: &str = "arithmetic coding";

/// What the program makes of a file.
pub(crate) fn ours(bytes: &[u8]) -> Outcome {
    match RgbImage::decode(bytes) {
        Ok(image) => {
            let mut hash = Sha256::new();
            hash.update(image.width().to_le_bytes());
            hash.update(image.height().to_le_bytes());
            hash.update(image.pixels());
            let hash = hash.finalize();
            Outcome::Pixels(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
        }
        Err(error) => Outcome::Refused(reason(&error)),
    }
}

/// The rule that a file breaks, without the numbers of the file.
fn reason(error: &AugmentError) -> String {
    match error {
        AugmentError::Truncated { .. } => "the file ends before its picture does".into(),
        AugmentError::Damaged { reason, .. } => (*reason).into(),
        AugmentError::Unsupported { feature, .. } => (*feature).into(),
        AugmentError::TooLarge { .. } => "the picture is too large".into(),
        other => other.to_string(),
    }
}

/// How the program's outcome compares with Pillow's.
pub(crate) fn class(sample: &Sample, ours: &Outcome, pillow: &Outcome) -> Class {
    match (ours, pillow) {
        (Outcome::Pixels(ours), Outcome::Pixels(pillow)) if ours == pillow => Class::SameBits,
        (Outcome::Pixels(_), Outcome::Pixels(_)) => Class::OtherBits,
        (Outcome::Pixels(_), Outcome::Refused(_)) => Class::OnlyPillowRefuses,
        (Outcome::Refused(_), Outcome::Refused(_)) => Class::BothRefuse,
        (Outcome::Refused(reason), Outcome::Pixels(_)) => {
            let reasons: &[&str] = match sample.origin {
                Origin::Jpeg | Origin::Png => &[SOUND_REASON],
                Origin::DamagedJpeg => JPEG_REASONS,
                Origin::DamagedPng => PNG_REASONS,
            };
            if reasons.contains(&reason.as_str()) { Class::Listed } else { Class::NotListed }
        }
    }
}

/// Whether parts of a JPEG are decoded to the same pixels as in the whole; true of what is not decoded.
pub(crate) fn parts_agree(bytes: &[u8]) -> bool {
    if !bytes.starts_with(b"\xff\xd8") {
        return true;
    }
    let whole = RgbImage::decode(bytes);
    let (Ok(whole), Ok(jpeg)) = (whole, moco_jpeg::read_header(bytes)) else { return true };
    let (width, height) = (jpeg.width, jpeg.height);
    let region = Region {
        top: height / 3,
        left: width / 4,
        height: height.div_ceil(3),
        width: width.div_ceil(2),
    };
    let Ok(part) = moco_jpeg::decode(jpeg, region, BelowRegion::Skip) else { return false };
    let rows = (region.top..region.top + region.height).flat_map(|y| {
        let start = 3 * (y * width + region.left) as usize;
        &whole.pixels()[start..][..3 * region.width as usize]
    });
    rows.eq(&part)
}
