//! Pillow's Gaussian blur: three extended box blurs along rows, then three along columns.

use moco_jpeg::vectorized;

use crate::RgbImage;
use crate::planes::{Planes, through_planes};

const N_PASSES: usize = 3;
/// Samples summed together; their sums stay in registers.
const BLOCK: usize = 32;

/// Blurs with standard deviation `sigma` in pixels (Pillow `ImageFilter.GaussianBlur(radius=sigma)`).
///
/// Pillow approximates the Gaussian by three box filters whose length may be fractional, and rounds to u8
/// after each; so does this.
pub fn gaussian_blur(image: &mut RgbImage, sigma: f64) {
    through_planes(image, |planes| blur_planes(planes, sigma));
}

/// The same on planes.
pub(crate) fn blur_planes(planes: &mut Planes, sigma: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "Pillow keeps the radius as a float")]
    let kernel = Kernel::new(sigma as f32);
    if kernel.is_identity() {
        return;
    }
    let width = planes.width();
    let mut padded = Vec::new();
    vectorized(
        #[inline(always)]
        |_| {
            for channel in planes.channels_mut() {
                for row in channel.chunks_exact_mut(width) {
                    for _ in 0..N_PASSES {
                        kernel.pass(row, 1, &mut padded);
                    }
                }
                for _ in 0..N_PASSES {
                    kernel.pass(channel, width, &mut padded);
                }
            }
        },
    );
}

/// An extended box filter: weight `near` on 2·radius + 1 samples and `far` on the two beyond, in 2⁻²⁴.
struct Kernel {
    radius: usize,
    near: u32,
    far: u32,
}

impl Kernel {
    #[expect(clippy::cast_possible_truncation, reason = "C's conversions (BoxBlur.c)")]
    #[expect(clippy::cast_sign_loss, reason = "radii and weights are not negative")]
    #[expect(clippy::cast_precision_loss, reason = "the number of passes is 3")]
    fn new(sigma: f32) -> Self {
        let variance = sigma * sigma / N_PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let mut part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
        part /= 6.0 * (variance - (whole + 1.0) * (whole + 1.0));
        let box_radius = whole + part;

        let radius = box_radius as usize;
        let near = (16_777_216.0 / (box_radius * 2.0 + 1.0)) as u32;
        let far = ((1_u32 << 24).wrapping_sub((2 * radius as u32 + 1).wrapping_mul(near))) / 2;
        Self { radius, near, far }
    }

    fn is_identity(&self) -> bool {
        self.near == 1 << 24
    }

    /// Filters `samples` in place along lines whose neighbors are `stride` apart: 1 within a row,
    /// a row's length within the columns. `padded` is scratch.
    #[inline(always)]
    fn pass(&self, samples: &mut [u8], stride: usize, padded: &mut Vec<u8>) {
        let n_pad = self.radius + 1;
        let last = samples.len() - stride;
        padded.clear();
        for _ in 0..n_pad {
            padded.extend_from_slice(&samples[..stride]);
        }
        padded.extend_from_slice(samples);
        for _ in 0..n_pad {
            padded.extend_from_slice(&samples[last..]);
        }
        match self.radius {
            0 => self.filter_near::<1>(samples, padded, stride),
            1 => self.filter_near::<3>(samples, padded, stride),
            _ => self.filter_blocks(samples, padded, stride),
        }
    }

    /// The filter with `N_NEAR` inner taps; sigma up to 2 needs no more than 3.
    #[inline(always)]
    fn filter_near<const N_NEAR: usize>(&self, out: &mut [u8], taps: &[u8], stride: usize) {
        let n = out.len();
        let (first, last) = (&taps[..n], &taps[(N_NEAR + 1) * stride..][..n]);
        let inner: [&[u8]; N_NEAR] = std::array::from_fn(|tap| &taps[(tap + 1) * stride..][..n]);
        for i in 0..n {
            let far = u32::from(first[i]) + u32::from(last[i]);
            let mut near = 0;
            for samples in inner {
                near += u32::from(samples[i]);
            }
            out[i] = self.weigh(near, far);
        }
    }

    #[inline(always)]
    fn weigh(&self, near: u32, far: u32) -> u8 {
        let (near, far) = (near.wrapping_mul(self.near), far.wrapping_mul(self.far));
        (near.wrapping_add(far).wrapping_add(1 << 23) >> 24) as u8
    }

    /// The filter of any radius.
    fn filter_blocks(&self, samples: &mut [u8], padded: &[u8], stride: usize) {
        let mut start = 0;
        let mut blocks = samples.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            self.filter::<BLOCK>(block, &padded[start..], stride);
            start += BLOCK;
        }
        for sample in blocks.into_remainder().chunks_exact_mut(1) {
            self.filter::<1>(sample, &padded[start..], stride);
            start += 1;
        }
    }

    /// Filters N neighboring lines at once; `taps` starts at the first sample under the filter.
    #[inline]
    fn filter<const N: usize>(&self, out: &mut [u8], taps: &[u8], stride: usize) {
        let n_near = 2 * self.radius + 1;
        let mut near = [0_u32; N];
        for tap in 1..=n_near {
            for (sum, sample) in near.iter_mut().zip(&taps[tap * stride..][..N]) {
                *sum += u32::from(*sample);
            }
        }
        let (first, last) = (&taps[..N], &taps[(n_near + 1) * stride..][..N]);
        for i in 0..N {
            out[i] = self.weigh(near[i], u32::from(first[i]) + u32::from(last[i]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_stays_and_a_dot_spreads_by_sigma() {
        let mut flat = RgbImage::new(5, 7, vec![200; 105]).unwrap();
        gaussian_blur(&mut flat, 1.7);
        assert!(flat.pixels().iter().all(|v| *v == 200));

        let mut line = RgbImage::new(41, 1, vec![0; 123]).unwrap();
        line.triples_mut()[20] = [255; 3];
        gaussian_blur(&mut line, 2.0);
        let moment = |power: i32| -> f64 {
            let term = |(x, p): (i32, &[u8; 3])| {
                f64::from((x - 20).pow(power.unsigned_abs())) * f64::from(p[1])
            };
            (0..).zip(line.triples()).map(term).sum()
        };
        assert!((moment(0) - 255.0).abs() < 6.0 && moment(1).abs() < 1.0);
        assert!((moment(2) / moment(0) - 4.0).abs() < 0.2, "{}", moment(2) / moment(0));
    }

    #[test]
    fn sigma_zero_changes_nothing_and_a_radius_past_the_image_is_fine() {
        let pixels: Vec<u8> = (0..27).map(|i| i * 9).collect();
        let mut image = RgbImage::new(3, 3, pixels.clone()).unwrap();
        gaussian_blur(&mut image, 0.0);
        assert_eq!(image.pixels(), pixels);
        gaussian_blur(&mut image, 30.0);
        let spread = image.pixels().iter().step_by(3).max().unwrap() - image.pixels()[0];
        assert!(spread < 20, "{spread}");
    }
}
