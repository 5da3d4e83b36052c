//! A random part of the image, resized to a square: torchvision's `RandomResizedCrop`.

use moco_rng::Stream;

use crate::resample::{Size, resize_part};
use crate::{AugmentError, CropBox, Fidelity, RgbImage};

const N_TRIES: usize = 10;

/// The distribution of the box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomResizedCrop {
    /// Least and greatest share of the image's area.
    pub scale: (f64, f64),
    /// Least and greatest width per height.
    pub ratio: (f64, f64),
}

impl RandomResizedCrop {
    /// The papers' aspect ratios, 3/4 to 4/3, with this range of areas.
    #[must_use]
    pub fn with_scale(scale: (f64, f64)) -> Self {
        Self { scale, ratio: (3.0 / 4.0, 4.0 / 3.0) }
    }

    /// Draws a box in an image of this size (torchvision `RandomResizedCrop.get_params`).
    ///
    /// Ten tries; if none fits, the largest central box within the limits of the ratio.
    #[must_use]
    pub fn draw(&self, width: u32, height: u32, stream: &mut Stream) -> CropBox {
        let area = f64::from(width) * f64::from(height);
        let log_ratio = (libm::log(self.ratio.0), libm::log(self.ratio.1));
        for _ in 0..N_TRIES {
            let target = area * stream.range(self.scale.0, self.scale.1);
            let ratio = libm::exp(stream.range(log_ratio.0, log_ratio.1));
            let w = round_to_u32((target * ratio).sqrt());
            let h = round_to_u32((target / ratio).sqrt());
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = below(stream, height - h + 1);
                let left = below(stream, width - w + 1);
                return CropBox { top, left, height: h, width: w };
            }
        }
        self.central(width, height)
    }

    fn central(&self, width: u32, height: u32) -> CropBox {
        let ratio = f64::from(width) / f64::from(height);
        let (mut w, mut h) = (width, height);
        if ratio < self.ratio.0 {
            h = round_to_u32(f64::from(width) / self.ratio.0);
        } else if ratio > self.ratio.1 {
            w = round_to_u32(f64::from(height) * self.ratio.1);
        }
        CropBox { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

/// Cuts the box out and resizes it to `size` x `size` with Pillow's antialiased bilinear filter
/// (torchvision `resized_crop` on a PIL image).
///
/// # Errors
/// [`AugmentError::CropOutside`] if the image does not hold the box or the box has no pixels.
pub fn resized_crop(image: &RgbImage, crop: &CropBox, size: u32) -> Result<RgbImage, AugmentError> {
    resized_crop_as(image, crop, size, Fidelity::Exact)
}

/// The same, exact or fast.
pub(crate) fn resized_crop_as(
    image: &RgbImage,
    crop: &CropBox,
    size: u32,
    fidelity: Fidelity,
) -> Result<RgbImage, AugmentError> {
    if size == 0 || !crop.fits(image.width(), image.height()) {
        let (width, height) = (image.width(), image.height());
        return Err(AugmentError::CropOutside { crop: *crop, size, width, height });
    }
    Ok(resize_part(image, crop, Size { width: size, height: size }, fidelity))
}

/// Python's `round`: halves go to the even neighbor.
#[expect(clippy::cast_possible_truncation, reason = "sides of images fit u32")]
#[expect(clippy::cast_sign_loss, reason = "sides of images are not negative")]
pub(crate) fn round_to_u32(x: f64) -> u32 {
    x.round_ties_even() as u32
}

fn below(stream: &mut Stream, n: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "less than n")]
    let drawn = stream.below(u64::from(n)) as u32;
    drawn
}

#[cfg(test)]
mod tests {
    use moco_rng::{At, Purpose, Seed};
    use proptest::prelude::*;

    use super::*;

    fn stream(index: u64) -> Stream {
        Seed(5).stream(Purpose::Augment, At::index(index))
    }

    proptest! {
        #[test]
        fn the_box_lies_inside_and_keeps_area_and_ratio(
            width in 1_u32..700, height in 1_u32..700, low in 0.01_f64..1.0, index: u64,
        ) {
            let crop = RandomResizedCrop::with_scale((low, 1.0));
            let b = crop.draw(width, height, &mut stream(index));
            prop_assert!(b.fits(width, height), "{b:?} in {width}x{height}");
            if b == crop.central(width, height) {
                return Ok(());
            }
            // Each side is rounded by at most half a pixel.
            let (w, h) = (f64::from(b.width), f64::from(b.height));
            let area = f64::from(width) * f64::from(height);
            prop_assert!((w + 0.5) * (h + 0.5) >= low * area - 1e-6, "{b:?} too small");
            prop_assert!((w - 0.5) * (h - 0.5) <= area + 1e-6, "{b:?} too large");
            prop_assert!((w + 0.5) / (h - 0.5) >= 0.75 - 1e-9, "{b:?} too narrow");
            prop_assert!((w - 0.5) / (h + 0.5) <= 4.0 / 3.0 + 1e-9, "{b:?} too wide");
        }
    }

    #[test]
    fn where_ten_tries_must_fail_the_box_is_central() {
        let crop = RandomResizedCrop::with_scale((0.9, 1.0));
        let cases = [
            ((400, 10), CropBox { top: 0, left: 193, height: 10, width: 13 }),
            ((10, 400), CropBox { top: 193, left: 0, height: 13, width: 10 }),
            ((1, 5), CropBox { top: 2, left: 0, height: 1, width: 1 }),
        ];
        for ((width, height), expected) in cases {
            assert_eq!(crop.draw(width, height, &mut stream(0)), expected, "{width}x{height}");
        }
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!([0.5, 1.5, 2.5, 2.51, 3.49].map(round_to_u32), [0, 2, 2, 3, 3]);
    }

    #[test]
    fn a_box_outside_the_image_is_refused() {
        let image = RgbImage::new(4, 3, vec![0; 36]).unwrap();
        let crop = CropBox { top: 1, left: 0, height: 3, width: 4 };
        assert_eq!(
            resized_crop(&image, &crop, 2).unwrap_err().to_string(),
            "crop of 4x3 pixels at row 1, column 0 to 2x2 is impossible in a 4x3 image"
        );
        for (height, size) in [(0, 2), (1, 0)] {
            let crop = CropBox { top: 0, left: 0, height, width: 4 };
            assert!(matches!(
                resized_crop(&image, &crop, size),
                Err(AugmentError::CropOutside { .. })
            ));
        }
    }
}
