//! Brightness, contrast, saturation and hue by random factors in random order.

use moco_rng::Stream;

use moco_jpeg::vectorized;

use crate::hue::turn_planes;
use crate::planes::{Planes, through_planes};
use crate::whole::whole;
use crate::{RgbImage, luma};

/// Half-widths of the ranges of the four factors (torchvision `ColorJitter(b, c, s, h)`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorJitter {
    /// The factor is uniform in [max(0, 1 - b), 1 + b]; likewise for the next two.
    pub brightness: f64,
    /// See `brightness`.
    pub contrast: f64,
    /// See `brightness`.
    pub saturation: f64,
    /// The turn is uniform in [-h, h], in full turns, h at most 0.5.
    pub hue: f64,
}

/// One of the four adjustments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JitterOp {
    /// See [`adjust_brightness`].
    Brightness,
    /// See [`adjust_contrast`].
    Contrast,
    /// See [`adjust_saturation`].
    Saturation,
    /// See [`adjust_hue`](crate::adjust_hue).
    Hue,
}

/// The factors of one view and the order in which they act.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JitterDraw {
    /// First to last.
    pub order: [JitterOp; 4],
    /// Factor of brightness, 1 for no change.
    pub brightness: f64,
    /// Factor of contrast, 1 for no change.
    pub contrast: f64,
    /// Factor of saturation, 1 for no change.
    pub saturation: f64,
    /// Turn of the hue in full turns.
    pub hue: f64,
}

impl ColorJitter {
    /// Draws the order, then the four factors, each of them always, so that a strength of 0 does not
    /// shift what is drawn after it.
    #[must_use]
    pub fn draw(&self, stream: &mut Stream) -> JitterDraw {
        let mut order =
            [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue];
        stream.shuffle(&mut order);
        let mut around_one = |width: f64| stream.range((1.0 - width).max(0.0), 1.0 + width);
        JitterDraw {
            order,
            brightness: around_one(self.brightness),
            contrast: around_one(self.contrast),
            saturation: around_one(self.saturation),
            hue: stream.range(-self.hue, self.hue),
        }
    }
}

impl JitterDraw {
    /// Applies the four adjustments in their order.
    pub fn apply(&self, image: &mut RgbImage) {
        through_planes(image, |planes| self.apply_planes(planes));
    }

    /// The same on planes.
    pub(crate) fn apply_planes(&self, planes: &mut Planes) {
        for op in self.order {
            match op {
                JitterOp::Brightness => blend_all(planes, 0, self.brightness),
                JitterOp::Contrast => contrast(planes, self.contrast),
                JitterOp::Saturation => saturation(planes, self.saturation),
                JitterOp::Hue => turn_planes(planes, self.hue),
            }
        }
    }
}

/// Blends with black (Pillow `ImageEnhance.Brightness`).
pub fn adjust_brightness(image: &mut RgbImage, factor: f64) {
    through_planes(image, |planes| blend_all(planes, 0, factor));
}

/// Blends with a gray of the mean luma, rounded (Pillow `ImageEnhance.Contrast`).
pub fn adjust_contrast(image: &mut RgbImage, factor: f64) {
    through_planes(image, |planes| contrast(planes, factor));
}

/// Blends each pixel with its luma (Pillow `ImageEnhance.Color`).
pub fn adjust_saturation(image: &mut RgbImage, factor: f64) {
    through_planes(image, |planes| saturation(planes, factor));
}

fn contrast(planes: &mut Planes, factor: f64) {
    let sum = vectorized(
        #[inline(always)]
        |_| luma_sum(planes.channels()),
    );
    let n_pixels = planes.samples().len() / 3;
    #[expect(clippy::cast_precision_loss, reason = "sums of bytes stay below 2^53")]
    #[expect(clippy::cast_possible_truncation, reason = "a mean of bytes")]
    #[expect(clippy::cast_sign_loss, reason = "a mean of bytes")]
    let mean = (sum as f64 / n_pixels as f64 + 0.5) as u8;
    blend_all(planes, mean, factor);
}

#[inline(always)]
fn luma_sum([red, green, blue]: [&[u8]; 3]) -> u64 {
    // A row of this many bytes sums up in 32 bits.
    let chunks = red.chunks(1 << 16).zip(green.chunks(1 << 16)).zip(blue.chunks(1 << 16));
    let mut sum = 0;
    for ((red, green), blue) in chunks {
        let mut part = 0_u32;
        for ((red, green), blue) in red.iter().zip(green).zip(blue) {
            part += u32::from(luma([*red, *green, *blue]));
        }
        sum += u64::from(part);
    }
    sum
}

fn saturation(planes: &mut Planes, factor: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "Pillow blends in single precision")]
    let factor = factor as f32;
    let [red, green, blue] = planes.channels_mut();
    vectorized(
        #[inline(always)]
        |_| {
            let n = red.len();
            let (green, blue) = (&mut green[..n], &mut blue[..n]);
            for i in 0..n {
                let gray = luma([red[i], green[i], blue[i]]);
                red[i] = blend(gray, red[i], factor);
                green[i] = blend(gray, green[i], factor);
                blue[i] = blend(gray, blue[i], factor);
            }
        },
    );
}

fn blend_all(planes: &mut Planes, from: u8, factor: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "Pillow blends in single precision")]
    let factor = factor as f32;
    let samples = planes.samples_mut();
    vectorized(
        #[inline(always)]
        |_| {
            for sample in samples {
                *sample = blend(from, *sample, factor);
            }
        },
    );
}

/// Pillow's `Image.blend` of two samples: truncated, and clamped where a factor over 1 extrapolates.
#[inline(always)]
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let mixed = f32::from(from) + factor * f32::from(i16::from(to) - i16::from(from));
    let mixed = if mixed < 0.0 { 0.0 } else { mixed };
    let mixed = if mixed > 255.0 { 255.0 } else { mixed };
    whole(mixed) as u8
}

#[cfg(test)]
mod tests {
    use moco_rng::{At, Purpose, Seed};

    use super::*;

    #[test]
    fn blend_truncates_inside_and_clamps_outside() {
        let cases =
            [(0, 255, 0.5, 127), (200, 100, 1.4, 60), (100, 250, 2.0, 255), (100, 10, 2.0, 0)];
        for (from, to, factor, expected) in cases {
            assert_eq!(blend(from, to, factor), expected, "{from} {to} {factor}");
        }
    }

    #[test]
    fn factor_zero_gives_what_is_blended_with_and_one_changes_nothing() {
        let image = RgbImage::new(2, 1, vec![255, 0, 0, 10, 20, 30]).unwrap();
        // Lumas 76 and 18, mean 47.
        type Adjust = fn(&mut RgbImage, f64);
        let cases: [(Adjust, [u8; 6]); 3] = [
            (adjust_brightness, [0; 6]),
            (adjust_contrast, [47; 6]),
            (adjust_saturation, [76, 76, 76, 18, 18, 18]),
        ];
        for (adjust, expected) in cases {
            let mut changed = image.clone();
            adjust(&mut changed, 1.0);
            assert_eq!(changed, image);
            adjust(&mut changed, 0.0);
            assert_eq!(changed.pixels(), expected);
        }
    }

    #[test]
    fn orders_are_uniform_and_factors_fill_their_ranges() {
        let jitter = ColorJitter { brightness: 0.4, contrast: 1.5, saturation: 0.0, hue: 0.1 };
        let mut stream = Seed(2).stream(Purpose::Augment, At::default());
        let draws: Vec<JitterDraw> = (0..24_000).map(|_| jitter.draw(&mut stream)).collect();
        let mut counts = std::collections::BTreeMap::new();
        for draw in &draws {
            *counts.entry(format!("{:?}", draw.order)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        // 1000 expected, standard deviation 31.
        assert!(counts.values().all(|n| (860..1140).contains(n)), "{counts:?}");
        let within = |get: fn(&JitterDraw) -> f64, low: f64, high: f64| {
            let values = || draws.iter().map(get);
            let least = values().fold(f64::INFINITY, f64::min);
            let greatest = values().fold(f64::NEG_INFINITY, f64::max);
            assert!(low <= least && least <= low + 0.01 * (high - low), "{least} for {low}");
            assert!(
                high - 0.01 * (high - low) <= greatest && greatest <= high,
                "{greatest} for {high}"
            );
        };
        within(|d| d.brightness, 0.6, 1.4);
        within(|d| d.contrast, 0.0, 2.5);
        within(|d| d.saturation, 1.0, 1.0);
        within(|d| d.hue, -0.1, 0.1);
    }
}
