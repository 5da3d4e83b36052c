//! Turning the hue on Pillow's 8-bit HSV wheel.
//!
//! The conversions go through u8 in both directions and mix float with double exactly where Pillow's C
//! code does (`Convert.c`, `rgb2hsv_row` and `hsv2rgb`): in plain f32 one sample in 500 differs.

use crate::RgbImage;

/// Pixels turned together.
const BLOCK: usize = 64;

/// Turns the hue by `factor` of a full turn, -0.5 to 0.5 (torchvision `adjust_hue`).
///
/// The turn is counted in 255ths and truncated towards zero; the quantization of the two conversions
/// happens even when it is 0.
pub fn adjust_hue(image: &mut RgbImage, factor: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "the turn wraps around the wheel")]
    #[expect(clippy::cast_sign_loss, reason = "the turn wraps around the wheel")]
    let turn = ((factor * 255.0) as i32) as u8;
    let wheel = Wheel::new(turn);
    for block in image.triples_mut().chunks_mut(BLOCK) {
        wheel.turn(block);
    }
}

/// What depends on the turn or on one byte only, so that the loop over pixels looks it up.
struct Wheel {
    /// By hue before the turn: which of v, p, q and t each channel is in the sector of the turned hue.
    channels: [[u8; 3]; 256],
    /// By hue before the turn: the position of the turned hue within its sector.
    fraction: [f32; 256],
    /// Saturation in units of one.
    saturation: [f32; 256],
}

impl Wheel {
    #[expect(clippy::cast_possible_truncation, reason = "C's conversions, all in range")]
    #[expect(clippy::cast_sign_loss, reason = "floor of a number from 0 to 6")]
    fn new(turn: u8) -> Self {
        let turned = |h: usize| f64::from((h as u8).wrapping_add(turn)) * 6.0 / 255.0;
        Self {
            channels: std::array::from_fn(|h| SECTORS[turned(h) as usize % 6]),
            fraction: std::array::from_fn(|h| (turned(h) - turned(h).trunc()) as f32),
            saturation: std::array::from_fn(|s| (f64::from(s as u8) / 255.0) as f32),
        }
    }

    /// Turns up to [`BLOCK`] pixels. One quantity is computed for all of them before the next, which
    /// lets the compiler vectorize and halves the time.
    fn turn(&self, block: &mut [[u8; 3]]) {
        let (mut h, mut s, mut v) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
        for (i, pixel) in block.iter().enumerate() {
            (h[i], s[i], v[i]) = hsv(*pixel);
        }
        let (mut f, mut fs) = ([0.0; BLOCK], [0.0; BLOCK]);
        for i in 0..BLOCK {
            f[i] = self.fraction[usize::from(h[i])];
            fs[i] = self.saturation[usize::from(s[i])];
        }
        let (mut p, mut q, mut t) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
        for i in 0..BLOCK {
            let value = f64::from(v[i]);
            p[i] = round(value * (1.0 - f64::from(fs[i])));
            q[i] = round(value * (1.0 - f64::from(fs[i] * f[i])));
            t[i] = round(value * (1.0 - f64::from(fs[i]) * (1.0 - f64::from(f[i]))));
        }
        for (i, pixel) in block.iter_mut().enumerate() {
            let choices = [v[i], p[i], q[i], t[i]];
            *pixel = self.channels[usize::from(h[i])].map(|choice| choices[usize::from(choice)]);
        }
    }
}

/// The channels of the six sectors as indices into v, p, q, t.
const SECTORS: [[u8; 3]; 6] = [[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]];

/// Hue, saturation and value, each a byte.
///
/// Grays divide 0 by 0 here; the casts turn NaN into the 0 that Pillow assigns them.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "C's conversions; the results fit a byte")]
#[expect(clippy::cast_sign_loss, reason = "hue and saturation are not negative")]
fn hsv([r, g, b]: [u8; 3]) -> (u8, u8, u8) {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = f32::from(max - min);
    let saturation = range / f32::from(max);
    let (third, next, last) = if r == max {
        (0.0, b, g)
    } else if g == max {
        (2.0, r, b)
    } else {
        (4.0, g, r)
    };
    let below = |channel: u8| f64::from(f32::from(max - channel) / range);
    let hue = (third + below(next) - below(last)) as f32;
    // C takes fmod(hue / 6 + 1, 1); the argument is from 5/6 to 11/6, where subtracting 1 is exact.
    let turns = f64::from(hue) / 6.0 + 1.0;
    let hue = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    ((f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, max)
}

/// C's `round` of a number from 0 to 255, as a byte.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the number is at most 255")]
#[expect(clippy::cast_sign_loss, reason = "the number is not negative")]
fn round(x: f64) -> u8 {
    // `f64::round` is a function call on plain x86-64; x + 0.5 is exact enough because x has few bits.
    (x + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_have_their_textbook_hues() {
        let cases = [
            ([255, 0, 0], (0, 255, 255)),
            ([0, 255, 0], (85, 255, 255)),
            ([0, 0, 255], (170, 255, 255)),
            ([255, 255, 0], (42, 255, 255)),
            ([7, 7, 7], (0, 0, 7)),
        ];
        for (pixel, expected) in cases {
            assert_eq!(hsv(pixel), expected, "{pixel:?}");
        }
    }

    #[test]
    fn a_third_of_a_turn_moves_red_to_green_and_grays_stay() {
        let mut image = RgbImage::new(2, 1, vec![255, 0, 0, 9, 9, 9]).unwrap();
        adjust_hue(&mut image, 1.0 / 3.0);
        assert_eq!(image.pixels(), [0, 255, 0, 9, 9, 9]);
        adjust_hue(&mut image, -1.0 / 3.0);
        assert_eq!(image.pixels(), [255, 0, 0, 9, 9, 9]);
    }
}
