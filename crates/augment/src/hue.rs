//! Turning the hue on Pillow's 8-bit HSV wheel.
//!
//! Pillow's conversions go through u8 in both directions and mix float with double (`Convert.c`,
//! `rgb2hsv_row` and `hsv2rgb`). [`turn_pixel`] repeats them step by step. [`turn_block`] is integer and f32
//! arithmetic that vectorizes; where its result could depend on one of Pillow's roundings it says so, and
//! the block is done again step by step.

use moco_jpeg::vectorized;

use crate::RgbImage;
use crate::planes::{Planes, through_planes};
use crate::whole::whole;

/// Pixels turned together.
const BLOCK: usize = 64;

/// Turns the hue by `factor` of a full turn, -0.5 to 0.5 (torchvision `adjust_hue`).
///
/// The turn is counted in 255ths and truncated towards zero; the quantization of the two conversions
/// happens even when it is 0.
pub fn adjust_hue(image: &mut RgbImage, factor: f64) {
    through_planes(image, |planes| turn_planes(planes, factor));
}

/// The same on planes.
pub(crate) fn turn_planes(planes: &mut Planes, factor: f64) {
    let turn = in_255ths(factor);
    vectorized(
        #[inline(always)]
        |_| turn_channels(planes.channels_mut(), turn),
    );
}

/// The turn in units of Pillow's wheel.
#[expect(clippy::cast_possible_truncation, reason = "the turn wraps around the wheel")]
#[expect(clippy::cast_sign_loss, reason = "the turn wraps around the wheel")]
pub(crate) fn in_255ths(factor: f64) -> u8 {
    ((factor * 255.0) as i32) as u8
}

#[inline(always)]
fn turn_channels([red, green, blue]: [&mut [u8]; 3], turn: u8) {
    let (reds, red_rest) = red.as_chunks_mut::<BLOCK>();
    let (greens, green_rest) = green.as_chunks_mut::<BLOCK>();
    let (blues, blue_rest) = blue.as_chunks_mut::<BLOCK>();
    for ((r, g), b) in reds.iter_mut().zip(greens).zip(blues) {
        turn_whole_block([r, g, b], turn);
    }
    for ((r, g), b) in red_rest.iter_mut().zip(green_rest).zip(blue_rest) {
        [*r, *g, *b] = turn_pixel([*r, *g, *b], turn);
    }
}

#[inline(always)]
fn turn_whole_block([r, g, b]: [&mut [u8; BLOCK]; 3], turn: u8) {
    let (turned, is_sure) = turn_block([r, g, b], turn);
    if is_sure {
        [*r, *g, *b] = turned;
        return;
    }
    for i in 0..BLOCK {
        [r[i], g[i], b[i]] = turn_pixel([r[i], g[i], b[i]], turn);
    }
}

/// How far from a half, in 65025ths, Pillow's single precision can move a value before it is rounded:
/// four roundings of 2 to the minus 24 of at most 255 are 4.
const UNSURE: i32 = 7;

/// Turns a block; false if one of its values is so close to a half that Pillow may round either way.
#[inline(always)]
fn turn_block([r, g, b]: [&[u8; BLOCK]; 3], turn: u8) -> ([[u8; BLOCK]; 3], bool) {
    let (mut hues, mut saturations) = ([0_u8; BLOCK], [0_u8; BLOCK]);
    let mut on_boundary = [0_u8; BLOCK];
    for i in 0..BLOCK {
        let (r, g, b) = (i32::from(r[i]), i32::from(g[i]), i32::from(b[i]));
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let range = max - min;
        // The hue is (sixths · range + lead) / range sixths of a turn. Masks, not branches: they vectorize.
        let (is_r, is_g) = (mask(r == max), mask(g == max));
        let (is_g, is_b) = (is_g & !is_r, !(is_r | is_g));
        let lead = ((g - b) & is_r) | ((b - r) & is_g) | ((r - g) & is_b);
        let sixths = (6 & is_r & mask(g < b)) | (2 & is_g) | (4 & is_b);
        // Grays have range 0 and hue 0.
        let (divisor, max) = (range.max(1), max.max(1));
        let numerator = 85 * (sixths * divisor + lead);
        // Quotients that are no whole numbers are at least 1 / 510 away from one.
        let quotient = whole(numerator as f32 / (2 * divisor) as f32 + 0.001);
        hues[i] = (quotient & mask(range > 0)) as u8;
        on_boundary[i] = u8::from(numerator == 2 * divisor * quotient);
        saturations[i] = whole((255 * range) as f32 / max as f32 + 0.001) as u8;
    }
    for (hue, on_boundary) in hues.iter_mut().zip(on_boundary) {
        let below = BELOW[usize::from(*hue)] & on_boundary;
        *hue = hue.wrapping_sub(below).wrapping_add(turn);
    }
    let mut turned = [[0; BLOCK]; 3];
    let mut n_unsure = 0;
    for i in 0..BLOCK {
        let value = i32::from(r[i].max(g[i]).max(b[i]));
        let saturation = i32::from(saturations[i]);
        let six = 6 * i32::from(hues[i]);
        // Division by 255 of numbers up to 1530; the last hue is the first sector's.
        let sector = (six * 257 + 257) >> 16;
        let fraction = six - 255 * sector;
        let product = value * saturation + 128;
        let low = value - ((product + (product >> 8)) >> 8);
        let odd = mask(sector & 1 == 1);
        let away = (fraction & odd) | ((255 - fraction) & !odd);
        let numerator = value * saturation * away;
        let drop = whole(numerator as f32 * (1.0 / 65_025.0) + 0.5);
        let from_half = (numerator - 65_025 * drop).abs() - 32_512;
        n_unsure += i32::from(from_half.abs() < UNSURE);
        let middle = value - drop;
        let is = |sector_a: i32, sector_b: i32| mask(sector == sector_a) | mask(sector == sector_b);
        let pick = |full: i32, none: i32| {
            ((value & full) | (low & none) | (middle & !(full | none))) as u8
        };
        turned[0][i] = pick(is(0, 5) | is(6, 6), is(2, 3));
        turned[1][i] = pick(is(1, 2), is(4, 5));
        turned[2][i] = pick(is(3, 4), is(0, 1) | is(6, 6));
    }
    (turned, n_unsure == 0)
}

/// All bits or none.
#[inline(always)]
#[expect(clippy::fn_params_excessive_bools, reason = "it is the bool that is turned into bits")]
fn mask(condition: bool) -> i32 {
    -i32::from(condition)
}

/// By hue: 1 if Pillow's roundings bring a color of exactly this hue to the one below.
static BELOW: [u8; 256] = {
    let mut below = [0; 256];
    let mut hue = 0;
    while hue < 255 {
        // The saturated color of this hue, 2 / 85 of a sixth of a turn each.
        let (sixth, ahead) = (2 * hue / 85, (3 * (2 * hue % 85)) as u8);
        let pixel = match sixth {
            0 => [255, ahead, 0],
            1 => [255 - ahead, 255, 0],
            2 => [0, 255, ahead],
            3 => [0, 255 - ahead, 255],
            4 => [ahead, 0, 255],
            _ => [255, 0, 255 - ahead],
        };
        below[hue] = hue as u8 - hsv(pixel).0;
        hue += 1;
    }
    below
};

/// Turns one pixel with Pillow's steps.
#[expect(clippy::cast_possible_truncation, reason = "C's conversions, all in range")]
#[expect(clippy::cast_sign_loss, reason = "C's conversions, all in range")]
fn turn_pixel(pixel: [u8; 3], turn: u8) -> [u8; 3] {
    let (hue, saturation, max) = hsv(pixel);
    let sixths = f64::from(hue.wrapping_add(turn)) * 6.0 / 255.0;
    let fraction = (sixths - sixths.trunc()) as f32;
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let value = f64::from(max);
    let low = round(value * (1.0 - f64::from(saturation)));
    let falling = round(value * (1.0 - f64::from(saturation * fraction)));
    let rising = round(value * (1.0 - f64::from(saturation) * (1.0 - f64::from(fraction))));
    match sixths as u8 % 6 {
        0 => [max, rising, low],
        1 => [falling, max, low],
        2 => [low, max, rising],
        3 => [low, falling, max],
        4 => [rising, low, max],
        _ => [max, low, falling],
    }
}

/// Hue, saturation and value, each a byte.
///
/// Grays divide 0 by 0 here; the casts turn NaN into the 0 that Pillow assigns them.
#[expect(clippy::cast_possible_truncation, reason = "C's conversions; the results fit a byte")]
#[expect(clippy::cast_sign_loss, reason = "hue and saturation are not negative")]
const fn hsv([r, g, b]: [u8; 3]) -> (u8, u8, u8) {
    let max = if r >= g && r >= b {
        r
    } else if g >= b {
        g
    } else {
        b
    };
    let min = if r <= g && r <= b {
        r
    } else if g <= b {
        g
    } else {
        b
    };
    let range = (max - min) as f32;
    let saturation = range / max as f32;
    let (third, next, last) = if r == max {
        (0.0, b, g)
    } else if g == max {
        (2.0, r, b)
    } else {
        (4.0, g, r)
    };
    let below_next = ((max - next) as f32 / range) as f64;
    let below_last = ((max - last) as f32 / range) as f64;
    let hue = (third + below_next - below_last) as f32;
    // C takes fmod(hue / 6 + 1, 1); the argument is from 5/6 to 11/6, where subtracting 1 is exact.
    let turns = hue as f64 / 6.0 + 1.0;
    let hue = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    ((hue as f64 * 255.0) as u8, (saturation as f64 * 255.0) as u8, max)
}

/// C's `round` of a number from 0 to 255, as a byte.
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
