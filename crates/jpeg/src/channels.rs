//! Pixels of three bytes from and to their channels, 16 at a time.

use crate::simd::Avx2;

/// Pixels moved by one set of shuffles.
const GROUP: usize = 16;

/// Splits pixels into channels of as many samples.
///
/// `simd` is the proof that [`vectorized`](crate::vectorized) gives.
#[inline(always)]
pub fn take_apart(simd: Option<Avx2>, pixels: &[[u8; 3]], channels: [&mut [u8]; 3]) {
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

/// Fills pixels from channels of as many samples; the inverse of [`take_apart`].
///
/// `simd` is the proof that [`vectorized`](crate::vectorized) gives.
#[inline(always)]
pub fn put_together(simd: Option<Avx2>, channels: [&[u8]; 3], pixels: &mut [[u8; 3]]) {
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
    use crate::simd::vectorized;

    #[test]
    fn channels_hold_every_third_byte_and_go_back() {
        for n in [0, 1, 15, 16, 17, 50] {
            let pixels: Vec<[u8; 3]> = (0..n).map(|i| [i, 100 + i, 200 + i]).collect();
            let mut channels = [(); 3].map(|()| vec![0; pixels.len()]);
            let mut back = vec![[0; 3]; pixels.len()];
            let work = |simd| {
                take_apart(simd, &pixels, channels.each_mut().map(Vec::as_mut_slice));
                put_together(simd, channels.each_ref().map(Vec::as_slice), &mut back);
            };
            vectorized(work);
            for (channel, first) in channels.iter().zip([0, 100, 200]) {
                assert_eq!(*channel, (first..first + n).collect::<Vec<u8>>());
            }
            assert_eq!(back, pixels);
        }
    }
}
