//! Jitter without rounding between the blends: adjustments beside each other are one pass over the pixels.

use moco_jpeg::vectorized;

use crate::color_jitter::{JitterDraw, JitterOp};
use crate::hue::in_255ths;
use crate::planes::Planes;

/// Pixels adjusted together.
const BLOCK: usize = 64;
/// Blocks whose lumas sum up exactly in single precision.
const SUMMED: usize = 256;

/// Red, green and blue of a block.
type Block = [[f32; BLOCK]; 3];

/// A blend with a constant or with the luma of the pixel by a factor, or a turn of the hue in 255ths.
#[derive(Debug, Clone, Copy)]
enum Adjustment {
    Constant(f32, f32),
    Luma(f32),
    Hue(u8),
}

/// What [`JitterDraw::apply`] does, roughly.
pub(crate) fn jitter(draw: &JitterDraw, planes: &mut Planes) {
    // What was not done yet: it is at the next mean, which needs the pixels, or at the end.
    let mut waiting = Vec::with_capacity(4);
    for op in draw.order {
        let adjustment = match op {
            JitterOp::Brightness => Adjustment::Constant(0.0, draw.brightness as f32),
            JitterOp::Contrast => {
                if waiting.iter().any(|op| matches!(op, Adjustment::Hue(_))) {
                    adjust(planes, &waiting);
                    waiting.clear();
                }
                Adjustment::Constant(mean_luma(planes, &waiting), draw.contrast as f32)
            }
            JitterOp::Saturation => Adjustment::Luma(draw.saturation as f32),
            JitterOp::Hue => Adjustment::Hue(in_255ths(draw.hue)),
        };
        waiting.push(adjustment);
    }
    adjust(planes, &waiting);
}

fn adjust(planes: &mut Planes, adjustments: &[Adjustment]) {
    vectorized(
        #[inline(always)]
        |_| adjust_channels(planes.channels_mut(), adjustments),
    );
}

#[inline(always)]
fn adjust_channels([red, green, blue]: [&mut [u8]; 3], adjustments: &[Adjustment]) {
    let (reds, red_rest) = red.as_chunks_mut::<BLOCK>();
    let (greens, green_rest) = green.as_chunks_mut::<BLOCK>();
    let (blues, blue_rest) = blue.as_chunks_mut::<BLOCK>();
    for ((r, g), b) in reds.iter_mut().zip(greens).zip(blues) {
        [*r, *g, *b] = adjusted([r, g, b], adjustments);
    }
    let rest = [red_rest, green_rest, blue_rest];
    let [r, g, b] = rest.each_ref().map(|rest| filled_up(rest));
    for (rest, adjusted) in rest.into_iter().zip(adjusted([&r, &g, &b], adjustments)) {
        rest.copy_from_slice(&adjusted[..rest.len()]);
    }
}

/// The mean of the luma after blends, which have no hue among them.
fn mean_luma(planes: &Planes, blends: &[Adjustment]) -> f32 {
    let n = planes.samples().len() / 3;
    let sum = vectorized(
        #[inline(always)]
        |_| luma_sum(planes.channels(), blends),
    );
    (sum / n as f64).round() as f32
}

#[inline(always)]
fn luma_sum([red, green, blue]: [&[u8]; 3], blends: &[Adjustment]) -> f64 {
    let (reds, red_rest) = red.as_chunks::<BLOCK>();
    let (greens, green_rest) = green.as_chunks::<BLOCK>();
    let (blues, blue_rest) = blue.as_chunks::<BLOCK>();
    let mut sum = 0.0;
    for ((reds, greens), blues) in
        reds.chunks(SUMMED).zip(greens.chunks(SUMMED)).zip(blues.chunks(SUMMED))
    {
        let mut sums = [0.0; BLOCK];
        for ((r, g), b) in reds.iter().zip(greens).zip(blues) {
            let lumas = lumas([r, g, b], blends);
            for i in 0..BLOCK {
                sums[i] += lumas[i];
            }
        }
        sum += sums.into_iter().map(f64::from).sum::<f64>();
    }
    let [r, g, b] = [red_rest, green_rest, blue_rest].map(filled_up);
    let rest = lumas([&r, &g, &b], blends);
    sum + rest[..red_rest.len()].iter().copied().map(f64::from).sum::<f64>()
}

fn filled_up(rest: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

#[inline(always)]
fn adjusted(bytes: [&[u8; BLOCK]; 3], adjustments: &[Adjustment]) -> [[u8; BLOCK]; 3] {
    let mut block = load(bytes);
    for adjustment in adjustments {
        match *adjustment {
            Adjustment::Hue(turn) => turn_hue(&mut block, f32::from(turn)),
            blend => blend_block(&mut block, blend),
        }
    }
    let mut out = [[0; BLOCK]; 3];
    for (samples, bytes) in block.iter().zip(&mut out) {
        for (sample, byte) in samples.iter().zip(bytes) {
            *byte = truncated(*sample);
        }
    }
    out
}

#[inline(always)]
fn load(bytes: [&[u8; BLOCK]; 3]) -> Block {
    let mut block = [[0.0; BLOCK]; 3];
    for (samples, bytes) in block.iter_mut().zip(bytes) {
        for (sample, byte) in samples.iter_mut().zip(bytes) {
            *sample = f32::from(*byte);
        }
    }
    block
}

#[inline(always)]
fn lumas(bytes: [&[u8; BLOCK]; 3], blends: &[Adjustment]) -> [f32; BLOCK] {
    let mut block = load(bytes);
    for blend in blends {
        blend_block(&mut block, *blend);
    }
    let mut lumas = [0.0; BLOCK];
    for (i, luma) in lumas.iter_mut().enumerate() {
        // Half of it for Pillow's rounding of the luma, less the half that its blends truncate.
        *luma = weighed([block[0][i], block[1][i], block[2][i]]).floor();
    }
    lumas
}

#[inline(always)]
fn blend_block(block: &mut Block, blend: Adjustment) {
    let [red, green, blue] = block;
    match blend {
        Adjustment::Constant(from, factor) => {
            let rest = from - factor * from;
            for channel in [red, green, blue] {
                for sample in channel {
                    *sample = clamped(rest + factor * *sample);
                }
            }
        }
        Adjustment::Luma(factor) => {
            for i in 0..BLOCK {
                let rest = (1.0 - factor) * weighed([red[i], green[i], blue[i]]);
                red[i] = clamped(rest + factor * red[i]);
                green[i] = clamped(rest + factor * green[i]);
                blue[i] = clamped(rest + factor * blue[i]);
            }
        }
        Adjustment::Hue(_) => {}
    }
}

/// Pillow's way over 8-bit HSV (`hue.rs` has it step by step), in single precision and without branches.
#[inline(always)]
fn turn_hue([red, green, blue]: &mut Block, turn: f32) {
    for i in 0..BLOCK {
        let (r, g, b) = (red[i].floor(), green[i].floor(), blue[i].floor());
        let (max, min) = (greater(greater(r, g), b), less(less(r, g), b));
        let range = max - min;
        // Sixths of a turn from red, times the range.
        let from_blue = 4.0 * range + (r - g);
        let from_green = if g == max { 2.0 * range + (b - r) } else { from_blue };
        let from_red = if g < b { 6.0 * range + (g - b) } else { g - b };
        let sixths = if r == max { from_red } else { from_green };
        // Quotients that are no whole numbers are at least 1 / 510 away from one. Grays have hue 0.
        let hue = (sixths * 42.5 / greater(range, 1.0) + 0.001).floor() + turn;
        let hue = if hue >= 256.0 { hue - 256.0 } else { hue };
        let saturation = (255.0 * range / greater(max, 1.0) + 0.001).floor();
        let (sixths, chroma) = (hue * (6.0 / 255.0), max * saturation * (1.0 / 255.0));
        let channel = |ahead: f32| {
            let at = sixths + ahead;
            let at = if at >= 6.0 { at - 6.0 } else { at };
            let share = less(less(at, 4.0 - at), 1.0);
            (max - chroma * greater(share, 0.0) + 0.5).floor()
        };
        (red[i], green[i], blue[i]) = (channel(5.0), channel(3.0), channel(1.0));
    }
}

#[inline(always)]
fn weighed([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// These two compile to one instruction; `f32::max` also looks for NaN.
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn less(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn clamped(x: f32) -> f32 {
    less(greater(x, 0.0), 255.0)
}

/// The whole part of a number from 0 to 255. Pillow truncates after each blend, which takes half a level
/// off on average; here that happens once for about two blends.
#[inline(always)]
fn truncated(x: f32) -> u8 {
    // Adding 2 to the 23rd leaves no bits for a fraction: the number is in the lowest.
    (x.floor() + 8_388_608.0).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RgbImage, adjust_hue};

    #[test]
    fn all_but_a_few_hues_are_pillows() {
        let levels = || (0_u8..=255).step_by(15);
        let colors =
            levels().flat_map(|r| levels().flat_map(move |g| levels().map(move |b| [r, g, b])));
        let colors: Vec<u8> = colors.flatten().collect();
        let image = RgbImage::new(18 * 18, 18, colors).unwrap();
        for factor in [-0.5, -0.31, -0.004, 0.0, 0.1, 0.25, 0.5] {
            let (mut exact, mut fast) = (image.clone(), image.clone());
            adjust_hue(&mut exact, factor);
            let mut planes = Planes::new(&fast);
            adjust(&mut planes, &[Adjustment::Hue(in_255ths(factor))]);
            planes.store(&mut fast);
            let pairs = exact.pixels().iter().zip(fast.pixels());
            let differences = pairs.map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0);
            let differences: Vec<u8> = differences.collect();
            assert!(differences.len() < image.pixels().len() / 200, "{factor}: {differences:?}");
            // The hues on whose boundaries these colors lie are 6 levels apart.
            assert!(differences.iter().all(|d| *d <= 6), "{factor}: {differences:?}");
        }
    }
}
