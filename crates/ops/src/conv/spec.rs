//! Constants of a convolution.

/// Constants of a convolution, as in PyTorch's `conv2d`; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conv2dSpec {
    /// Step between two output pixels, in input pixels.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Distance of two taps, in input pixels.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Conv2dSpec {
    /// This stride and padding, no dilation, one group.
    #[must_use]
    pub fn new(stride: usize, padding: usize) -> Self {
        Self { stride, padding, dilation: 1, groups: 1 }
    }
}
