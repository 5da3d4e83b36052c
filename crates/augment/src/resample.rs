//! Pillow's antialiased bilinear resampling of u8 images, to the bit.
//!
//! Rows first, then columns, each with 22-bit fixed-point weights and rounding to u8, as Pillow up to
//! 12.3 does for every shape (13.0 takes columns first for some portrait shapes, which moves samples by 1).

use crate::RgbImage;
use crate::random_resized_crop::CropBox;

/// Fraction bits of a weight: 32 less 8 for the sample and 2 for overshoot (Pillow `Resample.c`).
const WEIGHT_BITS: u32 = 22;
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// Resizes the part of `image` inside `crop` to `width` x `height`.
///
/// Pixels outside the crop have no influence: this is crop-then-resize, not `resize(box=…)`.
/// The crop must lie inside the image.
pub(crate) fn resize_part(image: &RgbImage, crop: &CropBox, width: u32, height: u32) -> RgbImage {
    let n_out = 3 * width as usize;
    let rows = (0..crop.height as usize).map(|y| {
        let start = (crop.top as usize + y) * image.stride() + 3 * crop.left as usize;
        &image.pixels()[start..start + 3 * crop.width as usize]
    });
    let mut wide = vec![0_u8; n_out * crop.height as usize];
    let outputs = wide.chunks_exact_mut(n_out);
    if crop.width == width {
        outputs.zip(rows).for_each(|(output, row)| output.copy_from_slice(row));
    } else {
        let filter = Filter::new(crop.width, width);
        outputs.zip(rows).for_each(|(output, row)| filter.resize_row(row, output));
    }
    if crop.height != height {
        wide = Filter::new(crop.height, height).resize_columns(&wide, n_out);
    }
    RgbImage::from_transform(width, height, wide)
}

/// The taps of each output position along one axis.
struct Filter {
    /// First input position and number of taps.
    spans: Vec<(usize, usize)>,
    /// `weights[out * n_max + tap]`, in units of 2⁻²².
    weights: Vec<i32>,
    n_max: usize,
}

impl Filter {
    #[expect(clippy::cast_possible_truncation, reason = "positions fit the sides of an image")]
    #[expect(clippy::cast_sign_loss, reason = "negative starts become 0, as intended")]
    #[expect(clippy::cast_precision_loss, reason = "tap numbers are small")]
    fn new(n_in: u32, n_out: u32) -> Self {
        let scale = f64::from(n_in) / f64::from(n_out);
        // Enlarging interpolates between neighbors; shrinking widens the triangle so nothing aliases.
        let support = scale.max(1.0);
        let n_max = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(n_out as usize);
        let mut weights = vec![0; n_out as usize * n_max];
        let mut triangle = vec![0.0_f64; n_max];
        for (out, fixed) in weights.chunks_exact_mut(n_max).enumerate() {
            let center = (out as f64 + 0.5) * scale;
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(n_in as usize);
            let taps = &mut triangle[..end - start];
            let mut sum = 0.0;
            for (tap, weight) in taps.iter_mut().enumerate() {
                let distance = ((tap + start) as f64 - center + 0.5) * (1.0 / support);
                *weight = (1.0 - distance.abs()).max(0.0);
                sum += *weight;
            }
            for (fixed, weight) in fixed.iter_mut().zip(taps) {
                *fixed = (0.5 + *weight / sum * f64::from(1_u32 << WEIGHT_BITS)) as i32;
            }
            spans.push((start, end - start));
        }
        Self { spans, weights, n_max }
    }

    fn taps(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let spans = self.spans.iter().zip(self.weights.chunks_exact(self.n_max));
        spans.map(|((start, n), weights)| (*start, &weights[..*n]))
    }

    /// Resizes one row of pixels.
    fn resize_row(&self, row: &[u8], output: &mut [u8]) {
        let (pixels, _) = row.as_chunks::<3>();
        let (outputs, _) = output.as_chunks_mut::<3>();
        for ((start, weights), output) in self.taps().zip(outputs) {
            let (mut r, mut g, mut b) = (HALF, HALF, HALF);
            for (pixel, weight) in pixels[start..start + weights.len()].iter().zip(weights) {
                r += i32::from(pixel[0]) * weight;
                g += i32::from(pixel[1]) * weight;
                b += i32::from(pixel[2]) * weight;
            }
            *output = [to_u8(r), to_u8(g), to_u8(b)];
        }
    }

    /// Resizes the columns of an image whose rows have `stride` samples.
    fn resize_columns(&self, image: &[u8], stride: usize) -> Vec<u8> {
        let mut resized = vec![0_u8; self.spans.len() * stride];
        let mut sums = vec![0_i32; stride];
        for ((start, weights), output) in self.taps().zip(resized.chunks_exact_mut(stride)) {
            sums.fill(HALF);
            for (row, weight) in image[start * stride..].chunks_exact(stride).zip(weights) {
                for (sum, sample) in sums.iter_mut().zip(row) {
                    *sum += i32::from(*sample) * weight;
                }
            }
            for (output, sum) in output.iter_mut().zip(&sums) {
                *output = to_u8(*sum);
            }
        }
        resized
    }
}

#[inline]
#[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
fn to_u8(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(image: &RgbImage, width: u32, height: u32) -> RgbImage {
        resize_part(image, &CropBox::whole(image.width(), image.height()), width, height)
    }

    #[test]
    fn halving_weighs_four_neighbors_by_the_triangle() {
        // One row 0, 80, 160, 240: weights 3/8 3/8 1/8 at the edges after renormalization by 7/8.
        let row = RgbImage::new(4, 1, [0, 80, 160, 240].into_iter().flat_map(|v| [v; 3]).collect());
        let half = resized(&row.unwrap(), 2, 1);
        let expected = [(3.0 * 80.0 + 160.0) / 7.0_f64, (80.0 + 3.0 * 160.0 + 3.0 * 240.0) / 7.0];
        assert_eq!(half.triples(), expected.map(|v| [v.round() as u8; 3]));
    }

    #[test]
    fn flat_images_stay_flat_at_any_size_and_equal_size_is_identity() {
        let flat = RgbImage::new(13, 9, vec![77; 13 * 9 * 3]).unwrap();
        for (width, height) in [(1, 1), (7, 20), (13, 9), (40, 3)] {
            assert!(resized(&flat, width, height).pixels().iter().all(|v| *v == 77));
        }
        let image = RgbImage::new(5, 4, (0..60).collect()).unwrap();
        assert_eq!(resized(&image, 5, 4), image);
    }

    #[test]
    fn pixels_outside_the_crop_have_no_influence() {
        let pixel =
            |x: u32, y: u32| if (2..6).contains(&x) && (1..4).contains(&y) { 50 } else { 255 };
        let pixels = (0..6).flat_map(|y| (0..8).flat_map(move |x| [pixel(x, y); 3])).collect();
        let image = RgbImage::new(8, 6, pixels).unwrap();
        let crop = CropBox { top: 1, left: 2, height: 3, width: 4 };
        assert!(resize_part(&image, &crop, 9, 2).pixels().iter().all(|v| *v == 50));
    }
}
