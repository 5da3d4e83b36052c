//! A view in three planes, the form in which loops over pixels vectorize.

use crate::RgbImage;
use crate::simd::{Avx2, vectorized};

/// An image whose red, green and blue samples lie apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planes {
    width: usize,
    height: usize,
    /// `[3, height, width]`.
    samples: Vec<u8>,
}

impl Planes {
    pub(crate) fn new(image: &RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut planes = Self { width, height, samples: vec![0; 3 * width * height] };
        let pixels = image.triples();
        vectorized(
            #[inline(always)]
            |simd| take_apart(simd, pixels, planes.channels_mut()),
        );
        planes
    }

    /// Puts the samples back into an image of the same size.
    pub(crate) fn store(&self, image: &mut RgbImage) {
        vectorized(
            #[inline(always)]
            |simd| put_together(simd, self.channels(), image.triples_mut()),
        );
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn samples(&self) -> &[u8] {
        &self.samples
    }

    pub(crate) fn samples_mut(&mut self) -> &mut [u8] {
        &mut self.samples
    }

    pub(crate) fn channels(&self) -> [&[u8]; 3] {
        let (red, rest) = self.samples.split_at(self.width * self.height);
        let (green, blue) = rest.split_at(self.width * self.height);
        [red, green, blue]
    }

    pub(crate) fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let (red, rest) = self.samples.split_at_mut(self.width * self.height);
        let (green, blue) = rest.split_at_mut(self.width * self.height);
        [red, green, blue]
    }
}

/// Applies `change` to an image through its planes.
pub(crate) fn through_planes(image: &mut RgbImage, change: impl FnOnce(&mut Planes)) {
    let mut planes = Planes::new(image);
    change(&mut planes);
    planes.store(image);
}

/// Pixels moved by one set of shuffles.
const GROUP: usize = 16;

#[inline(always)]
fn take_apart(simd: Option<Avx2>, pixels: &[[u8; 3]], channels: [&mut [u8]; 3]) {
    let [red, green, blue] = channels;
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = simd {
        let groups = pixels.as_flattened().as_chunks::<48>().0.iter();
        let outs = red.as_chunks_mut().0.iter_mut().zip(green.as_chunks_mut().0);
        for (group, ((red, green), blue)) in groups.zip(outs.zip(blue.as_chunks_mut().0)) {
            let parts =
                *group.as_chunks::<GROUP>().0.first_chunk::<3>().unwrap_or(&[[0; GROUP]; 3]);
            *red = shuffled(simd, parts, &APART[0]);
            *green = shuffled(simd, parts, &APART[1]);
            *blue = shuffled(simd, parts, &APART[2]);
        }
        done = pixels.len() / GROUP * GROUP;
    }
    let _ = simd;
    for (i, pixel) in pixels.iter().enumerate().skip(done) {
        [red[i], green[i], blue[i]] = *pixel;
    }
}

/// Fills pixels from channels of as many samples.
#[inline(always)]
pub(crate) fn put_together(simd: Option<Avx2>, channels: [&[u8]; 3], pixels: &mut [[u8; 3]]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = simd {
        let n_groups = pixels.len() / GROUP;
        let [red, green, blue] = channels.map(|channel| channel.as_chunks::<GROUP>().0);
        let outs = pixels.as_flattened_mut().as_chunks_mut::<GROUP>().0.as_chunks_mut::<3>().0;
        for (i, out) in outs.iter_mut().enumerate().take(n_groups) {
            let parts = [red[i], green[i], blue[i]];
            for (out, masks) in out.iter_mut().zip(&TOGETHER) {
                *out = shuffled(simd, parts, masks);
            }
        }
        done = n_groups * GROUP;
    }
    let _ = simd;
    for (i, pixel) in pixels.iter_mut().enumerate().skip(done) {
        *pixel = channels.map(|channel| channel[i]);
    }
}

/// For each result, from which byte of each part its bytes come; 128 gives 0.
type Masks = [[[u8; GROUP]; 3]; 3];

const APART: Masks = masks(&Direction::Apart);
const TOGETHER: Masks = masks(&Direction::Together);

enum Direction {
    Apart,
    Together,
}

const fn masks(direction: &Direction) -> Masks {
    let mut masks = [[[0x80; GROUP]; 3]; 3];
    let mut at = 0;
    while at < 3 * GROUP {
        let (channel, pixel) = (at % 3, at / 3);
        let (part, byte) = (at / GROUP, at % GROUP);
        match direction {
            Direction::Apart => masks[channel][part][pixel] = byte as u8,
            Direction::Together => masks[part][channel][byte] = pixel as u8,
        }
        at += 1;
    }
    masks
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn shuffled(simd: Avx2, parts: [[u8; GROUP]; 3], masks: &[[u8; GROUP]; 3]) -> [u8; GROUP] {
    let moved = |i: usize| simd.ssse3._mm_shuffle_epi8(pulp::cast(parts[i]), pulp::cast(masks[i]));
    let or = |a, b| simd.sse2._mm_or_si128(a, b);
    pulp::cast(or(or(moved(0), moved(1)), moved(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_each_channel_and_go_back() {
        for (width, height) in [(1, 1), (5, 3), (16, 1), (17, 4), (50, 7)] {
            let pixels: Vec<u8> = (0..3 * width * height).map(|i| (i * 7 % 251) as u8).collect();
            let image = RgbImage::new(width, height, pixels).unwrap();
            let planes = Planes::new(&image);
            for (channel, samples) in planes.channels().iter().enumerate() {
                assert!(samples.iter().zip(image.triples()).all(|(s, pixel)| *s == pixel[channel]));
            }
            let mut back = RgbImage::new(width, height, vec![0; image.pixels().len()]).unwrap();
            planes.store(&mut back);
            assert_eq!(back, image);
        }
    }
}
