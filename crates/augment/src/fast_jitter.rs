//! Jitter without rounding between the adjustments: those beside each other are one pass.

use crate::color_jitter::{JitterDraw, JitterOp};
use crate::hue::turn_planes_roughly;
use crate::luma;
use crate::planes::Planes;
use crate::simd::{vectorized, whole};

/// Every such pixel counts for the mean of contrast; it divides no usual width, so that all columns are met.
const SPARSE: usize = 7;
/// Pixels adjusted together.
const BLOCK: usize = 64;

/// A blend with black, with a constant or with the luma of the pixel, by a factor.
#[derive(Debug, Clone, Copy)]
enum Blend {
    Constant(f32, f32),
    Luma(f32),
}

/// What [`JitterDraw::apply`] does, roughly.
pub(crate) fn jitter(draw: &JitterDraw, planes: &mut Planes) {
    let mut blends = Vec::with_capacity(3);
    for op in draw.order {
        match op {
            JitterOp::Brightness => blends.push(Blend::Constant(0.0, draw.brightness as f32)),
            JitterOp::Contrast => {
                let mean = mean_luma(planes, &blends);
                blends.push(Blend::Constant(mean, draw.contrast as f32));
            }
            JitterOp::Saturation => blends.push(Blend::Luma(draw.saturation as f32)),
            JitterOp::Hue => {
                blend(planes, &blends);
                blends.clear();
                turn_planes_roughly(planes, draw.hue);
            }
        }
    }
    blend(planes, &blends);
}

/// The mean of the luma after `blends`, over some of the pixels.
fn mean_luma(planes: &Planes, blends: &[Blend]) -> f32 {
    let [red, green, blue] = planes.channels();
    let (mut sum, mut n) = (0_u32, 0_u32);
    let sparse = red.iter().zip(green).zip(blue).step_by(SPARSE);
    for ((red, green), blue) in sparse {
        let mut pixel = [*red, *green, *blue].map(f32::from);
        for blend in blends {
            pixel = blended(*blend, pixel);
        }
        sum += u32::from(luma(pixel.map(|x| (x + 0.5) as u8)));
        n += 1;
    }
    (sum as f32 / n as f32).round()
}

fn blend(planes: &mut Planes, blends: &[Blend]) {
    if blends.is_empty() {
        return;
    }
    vectorized(
        #[inline(always)]
        |_| blend_channels(planes.channels_mut(), blends),
    );
}

#[inline(always)]
fn blend_channels([red, green, blue]: [&mut [u8]; 3], blends: &[Blend]) {
    let (reds, red_rest) = red.as_chunks_mut::<BLOCK>();
    let (greens, green_rest) = green.as_chunks_mut::<BLOCK>();
    let (blues, blue_rest) = blue.as_chunks_mut::<BLOCK>();
    for ((r, g), b) in reds.iter_mut().zip(greens).zip(blues) {
        blend_block([r, g, b], blends);
    }
    for ((r, g), b) in red_rest.iter_mut().zip(green_rest).zip(blue_rest) {
        let mut pixel = [*r, *g, *b].map(f32::from);
        for blend in blends {
            pixel = blended(*blend, pixel);
        }
        [*r, *g, *b] = pixel.map(|x| (x + HALF) as u8);
    }
}

#[inline(always)]
fn blend_block(block: [&mut [u8; BLOCK]; 3], blends: &[Blend]) {
    let mut samples = [[0.0_f32; BLOCK]; 3];
    for (samples, bytes) in samples.iter_mut().zip(&block) {
        for (sample, byte) in samples.iter_mut().zip(bytes.iter()) {
            *sample = f32::from(*byte);
        }
    }
    for blend in blends {
        let [red, green, blue] = &mut samples;
        match *blend {
            Blend::Constant(from, factor) => {
                let rest = from - factor * from;
                for channel in [red, green, blue] {
                    for sample in channel {
                        *sample = clamped(rest + factor * *sample);
                    }
                }
            }
            Blend::Luma(factor) => {
                for i in 0..BLOCK {
                    let rest = (1.0 - factor) * weighed([red[i], green[i], blue[i]]);
                    red[i] = clamped(rest + factor * red[i]);
                    green[i] = clamped(rest + factor * green[i]);
                    blue[i] = clamped(rest + factor * blue[i]);
                }
            }
        }
    }
    for (samples, bytes) in samples.iter().zip(block) {
        for (sample, byte) in samples.iter().zip(bytes) {
            *byte = whole(*sample + HALF) as u8;
        }
    }
}

/// Pillow truncates after each blend, which takes half a level off on average; here that happens once
/// for about two blends, so a little less than rounding keeps the mean.
const HALF: f32 = 0.0;

#[inline(always)]
fn blended(blend: Blend, pixel: [f32; 3]) -> [f32; 3] {
    let (from, factor) = match blend {
        Blend::Constant(from, factor) => (from, factor),
        Blend::Luma(factor) => (weighed(pixel), factor),
    };
    pixel.map(|sample| clamped(from + factor * (sample - from)))
}

#[inline(always)]
fn weighed([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

#[inline(always)]
fn clamped(x: f32) -> f32 {
    let x = if x < 0.0 { 0.0 } else { x };
    if x > 255.0 { 255.0 } else { x }
}
