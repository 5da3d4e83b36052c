//! A part of an image.

use moco_jpeg::Region;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl CropBox {
    /// The box that holds all of an image.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self { top: 0, left: 0, height, width }
    }

    /// The smallest box around both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let (top, left) = (self.top.min(other.top), self.left.min(other.left));
        let bottom = (self.top + self.height).max(other.top + other.height);
        let right = (self.left + self.width).max(other.left + other.width);
        Self { top, left, height: bottom - top, width: right - left }
    }

    /// The box as the decoder of JPEG files takes it.
    pub(crate) fn region(self) -> Region {
        let Self { top, left, height, width } = self;
        Region { top, left, height, width }
    }

    /// Whether the box has pixels and an image of this size holds all of them.
    pub(crate) fn fits(self, width: u32, height: u32) -> bool {
        self.region().is_within(width, height)
    }
}
