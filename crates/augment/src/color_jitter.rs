//! Brightness, contrast, saturation and hue by random factors in random order.

use moco_rng::Stream;

use crate::{RgbImage, adjust_hue, luma};

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
    /// See [`adjust_hue`].
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
        for op in self.order {
            match op {
                JitterOp::Brightness => adjust_brightness(image, self.brightness),
                JitterOp::Contrast => adjust_contrast(image, self.contrast),
                JitterOp::Saturation => adjust_saturation(image, self.saturation),
                JitterOp::Hue => adjust_hue(image, self.hue),
            }
        }
    }
}

/// Blends with black (Pillow `ImageEnhance.Brightness`).
pub fn adjust_brightness(image: &mut RgbImage, factor: f64) {
    blend_all(image, 0, factor);
}

/// Blends with a gray of the mean luma, rounded (Pillow `ImageEnhance.Contrast`).
pub fn adjust_contrast(image: &mut RgbImage, factor: f64) {
    let sum: u64 = image.triples().iter().map(|pixel| u64::from(luma(*pixel))).sum();
    #[expect(clippy::cast_precision_loss, reason = "sums of bytes stay below 2^53")]
    #[expect(clippy::cast_possible_truncation, reason = "a mean of bytes")]
    #[expect(clippy::cast_sign_loss, reason = "a mean of bytes")]
    let mean = (sum as f64 / image.triples().len() as f64 + 0.5) as u8;
    blend_all(image, mean, factor);
}

/// Blends each pixel with its luma (Pillow `ImageEnhance.Color`).
pub fn adjust_saturation(image: &mut RgbImage, factor: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "Pillow blends in single precision")]
    let factor = factor as f32;
    for pixel in image.triples_mut() {
        let gray = luma(*pixel);
        *pixel = pixel.map(|sample| blend(gray, sample, factor));
    }
}

fn blend_all(image: &mut RgbImage, from: u8, factor: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "Pillow blends in single precision")]
    let factor = factor as f32;
    let mut table = [0; 256];
    for (sample, blended) in (0..=255).zip(&mut table) {
        *blended = blend(from, sample, factor);
    }
    for sample in image.pixels_mut() {
        *sample = table[usize::from(*sample)];
    }
}

/// Pillow's `Image.blend` of two samples: truncated, and clamped where a factor over 1 extrapolates.
#[inline]
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let mixed = f32::from(from) + factor * f32::from(i16::from(to) - i16::from(from));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast truncates and clamps, as Pillow does"
    )]
    #[expect(clippy::cast_sign_loss, reason = "the cast truncates and clamps, as Pillow does")]
    let mixed = mixed as u8;
    mixed
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
