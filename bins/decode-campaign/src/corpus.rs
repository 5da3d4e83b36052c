//! The files of a campaign: each depends only on the seed and its number.

use crate::dice::Dice;
use crate::{jpeg_file, mutate, png_file};

/// Where a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Jpeg,
    Png,
    DamagedJpeg,
    DamagedPng,
}

impl Origin {
    pub(crate) const ALL: [Self; 4] = [Self::Jpeg, Self::Png, Self::DamagedJpeg, Self::DamagedPng];

    /// For reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::DamagedJpeg => "JPEG, damaged",
            Self::DamagedPng => "PNG, damaged",
        }
    }
}

/// A file and where it comes from.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) origin: Origin,
    pub(crate) bytes: Vec<u8>,
}

/// The file of this number.
pub(crate) fn sample(seed: u64, number: u64) -> Sample {
    let mut dice = Dice::new(seed, number);
    let origin = match number % 10 {
        0..4 => Origin::Jpeg,
        4..6 => Origin::Png,
        6..9 => Origin::DamagedJpeg,
        _ => Origin::DamagedPng,
    };
    let bytes = match origin {
        Origin::Jpeg => jpeg_file::draw(&mut dice),
        Origin::Png => png_file::draw(&mut dice),
        Origin::DamagedJpeg => {
            let file = jpeg_file::draw(&mut dice);
            mutate::mutate(&mut dice, file)
        }
        Origin::DamagedPng => {
            let file = png_file::draw(&mut dice);
            mutate::mutate(&mut dice, file)
        }
    };
    Sample { origin, bytes }
}
