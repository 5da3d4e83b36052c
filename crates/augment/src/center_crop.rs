//! The two steps of evaluation: resize by the shorter side, then cut out the center.

use crate::decode::check_size;
use crate::random_resized_crop::round_to_u32;
use crate::resample::{Size, resize_part};
use crate::{AugmentError, CropBox, Fidelity, RgbImage};

/// Resizes so that the shorter side is `size` and the ratio stays (torchvision `Resize(int)`).
///
/// The longer side is truncated to whole pixels. A `size` of 0 is taken as 1.
///
/// # Errors
/// [`AugmentError::TooLarge`] if the result would exceed what [`RgbImage::decode`] accepts.
pub fn resize_shorter_side(image: &RgbImage, size: u32) -> Result<RgbImage, AugmentError> {
    let (width, height) = (image.width(), image.height());
    let size = size.max(1);
    let long = u64::from(size) * u64::from(width.max(height)) / u64::from(width.min(height));
    let long = u32::try_from(long).unwrap_or(u32::MAX);
    let (w, h) = if width <= height { (size, long) } else { (long, size) };
    check_size(w, h)?;
    let resized = Size { width: w, height: h };
    Ok(resize_part(image, &CropBox::whole(width, height), resized, Fidelity::Exact))
}

/// Cuts out the central `size` x `size` pixels (torchvision `CenterCrop`).
///
/// A side shorter than `size` is filled up with black. A `size` of 0 is taken as 1.
#[must_use]
pub fn center_crop(image: &RgbImage, size: u32) -> RgbImage {
    let size = size.max(1);
    let side = size as usize;
    let (left, pad_left) = offset(image.width(), size);
    let (top, pad_top) = offset(image.height(), size);
    let n_columns = side.min(image.width() as usize);
    let n_rows = side.min(image.height() as usize);
    let mut pixels = vec![0; 3 * side * side];
    let rows = image.pixels().chunks_exact(image.stride()).skip(top).take(n_rows);
    for (output, row) in pixels.chunks_exact_mut(3 * side).skip(pad_top).zip(rows) {
        output[3 * pad_left..][..3 * n_columns].copy_from_slice(&row[3 * left..][..3 * n_columns]);
    }
    RgbImage::from_transform(size, size, pixels)
}

/// Pixels to skip, and black pixels to put, before the first one of a side.
fn offset(side: u32, size: u32) -> (usize, usize) {
    if side < size {
        return (0, ((size - side) / 2) as usize);
    }
    (round_to_u32(f64::from(side - size) / 2.0) as usize, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_truncated() {
        let size = |width: u32, height: u32, to| {
            let pixels = vec![0; 3 * width as usize * height as usize];
            let resized =
                resize_shorter_side(&RgbImage::new(width, height, pixels).unwrap(), to).unwrap();
            (resized.width(), resized.height())
        };
        assert_eq!(size(50, 37, 25), (33, 25));
        assert_eq!(size(37, 50, 25), (25, 33));
        assert_eq!(size(9, 9, 4), (4, 4));
        let thread = RgbImage::new(1, 100, vec![0; 300]).unwrap();
        let error = resize_shorter_side(&thread, 256).unwrap_err().to_string();
        assert!(error.starts_with("image of 256x25600 pixels is too large"), "{error}");
    }

    #[test]
    fn the_center_rounds_halves_to_even_and_short_sides_get_black() {
        let row = |values: &[u8]| {
            let pixels = values.iter().flat_map(|v| [*v; 3]).collect();
            RgbImage::new(u32::try_from(values.len()).unwrap(), 1, pixels).unwrap()
        };
        let crop = |values: &[u8], size| -> Vec<u8> {
            center_crop(&row(values), size).pixels().iter().step_by(3).copied().collect()
        };
        // An excess of 3 starts at round(1.5) = 2, an excess of 1 at round(0.5) = 0.
        assert_eq!(crop(&[1, 2, 3, 4], 1), [3]);
        assert_eq!(crop(&[1, 2], 1), [1]);
        assert_eq!(crop(&[9], 2), [9, 0, 0, 0]);
        assert_eq!(crop(&[8, 9], 3), [0, 0, 0, 8, 9, 0, 0, 0, 0]);
    }
}
