//! Which pixels are decoded.

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Region {
    /// All of a picture of these sides.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self { top: 0, left: 0, height, width }
    }

    /// Whether it has pixels and all of them are in a picture of these sides.
    #[must_use]
    pub fn is_within(&self, width: u32, height: u32) -> bool {
        let inside = |start: u32, n: u32, side: u32| {
            n > 0 && u64::from(start) + u64::from(n) <= u64::from(side)
        };
        inside(self.left, self.width, width) && inside(self.top, self.height, height)
    }
}

/// What happens to the coded data below the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BelowRegion {
    /// It is read too, so damage there is found.
    Read,
    /// It is skipped, which is faster and misses damage there.
    Skip,
}
