//! Gray as Pillow's mode `L`, kept in three equal channels.

use moco_jpeg::vectorized;

use crate::RgbImage;
use crate::planes::{Planes, through_planes};

/// Luma of one pixel: ITU-R 601-2 in 16-bit fixed point, rounded (Pillow `Convert.c`, `L24`).
#[must_use]
#[inline(always)]
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    #[expect(clippy::cast_possible_truncation, reason = "the weights sum to 65536")]
    let luma = (sum >> 16) as u8;
    luma
}

/// Replaces each pixel by its [`luma`] (torchvision `to_grayscale(num_output_channels=3)`).
pub fn grayscale(image: &mut RgbImage) {
    through_planes(image, gray_planes);
}

/// The same on planes.
pub(crate) fn gray_planes(planes: &mut Planes) {
    let [red, green, blue] = planes.channels_mut();
    vectorized(
        #[inline(always)]
        |_| {
            for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
                let luma = luma([*red, *green, *blue]);
                (*red, *green, *blue) = (luma, luma, luma);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grays_stay_and_primaries_follow_the_weights() {
        assert!((0..=255).all(|v| luma([v; 3]) == v));
        assert_eq!([[255, 0, 0], [0, 255, 0], [0, 0, 255]].map(luma), [76, 150, 29]);
        let mut image = RgbImage::new(2, 1, vec![255, 0, 0, 10, 20, 30]).unwrap();
        grayscale(&mut image);
        assert_eq!(image.pixels(), [76, 76, 76, 18, 18, 18]);
    }
}
