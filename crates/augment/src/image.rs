//! A decoded image: interleaved RGB bytes whose number always agrees with the sides.

use crate::AugmentError;

/// An RGB image, `[height, width, 3]` u8, at least one pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// Wraps `pixels`, `[height, width, 3]`.
    ///
    /// # Errors
    /// [`AugmentError::NoPixels`] if a side is 0, [`AugmentError::PixelCount`] if the number of bytes is not
    /// 3 · width · height.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, AugmentError> {
        if width == 0 || height == 0 {
            return Err(AugmentError::NoPixels { width, height });
        }
        // A product past 64 bits is past any buffer too, so saturating keeps the comparison right.
        let expected = (u64::from(width) * u64::from(height)).saturating_mul(3);
        if pixels.len() as u64 != expected {
            return Err(AugmentError::PixelCount { width, height, expected, got: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// Wraps pixels whose number a transform has just made right.
    pub(crate) fn from_transform(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), 3 * width as usize * height as usize);
        Self { width, height, pixels }
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes, to change in place.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The bytes, given away.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Bytes in a row.
    pub(crate) fn stride(&self) -> usize {
        3 * self.width as usize
    }

    /// The pixels one by one.
    pub(crate) fn triples(&self) -> &[[u8; 3]] {
        self.pixels.as_chunks().0
    }

    /// The pixels one by one, to change in place.
    pub(crate) fn triples_mut(&mut self) -> &mut [[u8; 3]] {
        self.pixels.as_chunks_mut().0
    }
}

impl std::fmt::Debug for RgbImage {
    // Millions of numbers in a failed assertion or a log help nobody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_bytes_must_fit_the_sides() {
        let message = |w, h, n| RgbImage::new(w, h, vec![0; n]).unwrap_err().to_string();
        assert_eq!(message(4, 3, 35), "a 4x3 RGB image needs 36 bytes, got 35");
        assert_eq!(
            message(0, 3, 0),
            "an image of 0x3 pixels has no pixels: both sides must be at least 1"
        );
        assert!(message(u32::MAX, u32::MAX, 1).contains("needs 18446744073709551615 bytes"));
        let image = RgbImage::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(image.triples(), [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(format!("{image:?}"), "RgbImage(2x1)");
    }
}
