//! Mirroring left and right.

use moco_jpeg::vectorized;

use crate::RgbImage;
use crate::planes::Planes;

/// Reverses each row of pixels (torchvision `hflip`).
pub fn flip_horizontal(image: &mut RgbImage) {
    let width = image.width() as usize;
    for row in image.triples_mut().chunks_exact_mut(width) {
        row.reverse();
    }
}

/// The same on planes.
pub(crate) fn flip_planes(planes: &mut Planes) {
    let width = planes.width();
    let rows = planes.samples_mut().chunks_exact_mut(width);
    vectorized(
        #[inline(always)]
        |_| {
            for row in rows {
                row.reverse();
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_swap_places_and_channels_do_not() {
        let mut image = RgbImage::new(3, 2, (0..18).collect()).unwrap();
        flip_horizontal(&mut image);
        let expected = [6, 7, 8, 3, 4, 5, 0, 1, 2, 15, 16, 17, 12, 13, 14, 9, 10, 11];
        assert_eq!(image.pixels(), expected);
    }
}
