//! Pillow's antialiased bilinear resampling of u8 images, bit for bit.
//!
//! Rows first, then columns, each with 22-bit fixed-point weights and rounding to u8, as Pillow up to
//! 12.3 does for every shape (13.0 takes columns first for some portrait shapes, which moves samples by 1).

use moco_jpeg::{Avx2, vectorized};

use crate::{CropBox, Fidelity, RgbImage};

/// Fraction bits of a weight: 32 less 8 for the sample and 2 for overshoot (Pillow `Resample.c`).
const WEIGHT_BITS: u32 = 22;
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// Sides of an image, in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Resizes the part of `image` inside `crop` to `size`.
///
/// Pixels outside the crop have no influence: this is crop-then-resize, not `resize(box=…)`.
/// The crop must be inside the image.
pub(crate) fn resize_part(
    image: &RgbImage,
    crop: &CropBox,
    size: Size,
    fidelity: Fidelity,
) -> RgbImage {
    let Size { width, height } = size;
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
        let filter = RowFilter::new(&Filter::new(crop.width, width));
        let mut padded = vec![0; filter.n_padded(crop.width as usize)];
        vectorized(
            #[inline(always)]
            |simd| {
                for (output, row) in outputs.zip(rows) {
                    padded[..row.len()].copy_from_slice(row);
                    match (simd, fidelity) {
                        #[cfg(target_arch = "x86_64")]
                        (Some(simd), Fidelity::Fast) => {
                            filter.resize_row_fast(simd, &padded, output)
                        }
                        _ => filter.resize_row(simd, &padded, output),
                    }
                }
            },
        );
    }
    if crop.height != height {
        let filter = Filter::new(crop.height, height);
        let mut resized = vec![0_u8; n_out * height as usize];
        vectorized(
            #[inline(always)]
            |simd| match (simd, fidelity) {
                #[cfg(target_arch = "x86_64")]
                (Some(simd), Fidelity::Fast) => {
                    avx2::resize_columns(simd, &filter, &wide, n_out, &mut resized);
                }
                _ => filter.resize_columns(&wide, n_out, &mut resized),
            },
        );
        wide = resized;
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

    /// Resizes the columns of an image whose rows have `stride` samples.
    #[inline(always)]
    fn resize_columns(&self, image: &[u8], stride: usize, resized: &mut [u8]) {
        for ((start, weights), output) in self.taps().zip(resized.chunks_exact_mut(stride)) {
            let rows = &image[start * stride..][..weights.len() * stride];
            let (blocks, rest) = output.as_chunks_mut::<BLOCK>();
            let n_blocks = blocks.len();
            for (i, block) in blocks.iter_mut().enumerate() {
                let mut sums = [HALF; BLOCK];
                for (row, weight) in rows.chunks_exact(stride).zip(weights) {
                    let samples = row.as_chunks::<BLOCK>().0;
                    for (sum, sample) in sums.iter_mut().zip(&samples[i]) {
                        *sum += i32::from(*sample) * weight;
                    }
                }
                *block = sums.map(to_u8);
            }
            for (i, output) in rest.iter_mut().enumerate() {
                let column = rows[BLOCK * n_blocks + i..].iter().step_by(stride);
                let sum = column.zip(weights).fold(HALF, |sum, (x, w)| sum + i32::from(*x) * w);
                *output = to_u8(sum);
            }
        }
    }
}

/// Samples of a row whose sums stay in registers.
const BLOCK: usize = 32;

/// A [`Filter`] for rows of pixels: two taps at a time, each weight once for each of the three samples.
struct RowFilter {
    /// First sample of each output pixel.
    starts: Vec<usize>,
    /// `[pixels, n_pairs, 8]`; the last two of the eight are 0.
    weights: Vec<[i32; 8]>,
    n_pairs: usize,
    /// `[pixels, n_fours, 16]`: the same in 14 bits, four taps at a time; only for fast.
    short: Vec<[i16; 16]>,
    n_fours: usize,
}

impl RowFilter {
    fn new(filter: &Filter) -> Self {
        let n_taps = filter.spans.iter().map(|(_, n)| *n).max().unwrap_or(1);
        let n_pairs = n_taps.div_ceil(2);
        let n_fours = n_taps.div_ceil(4);
        let mut weights = Vec::with_capacity(n_pairs * filter.spans.len());
        let mut short = Vec::with_capacity(n_fours * filter.spans.len());
        for (_, taps) in filter.taps() {
            for four in 0..n_fours {
                let weight =
                    |i: usize| taps.get(4 * four + i).map_or(0, |w| ((w + 128) >> 8) as i16);
                let [a, b, c, d] = [0, 1, 2, 3].map(weight);
                short.push([a, b, a, b, a, b, 0, 0, c, d, c, d, c, d, 0, 0]);
            }
            for pair in 0..n_pairs {
                let weight = |i: usize| taps.get(2 * pair + i).copied().unwrap_or(0);
                let (a, b) = (weight(0), weight(1));
                weights.push([a, a, a, b, b, b, 0, 0]);
            }
        }
        let starts = filter.spans.iter().map(|(start, _)| 3 * start).collect();
        Self { starts, weights, n_pairs, short, n_fours }
    }

    /// Length of a row of `width` pixels with room for the taps past its end, whose weights are 0.
    fn n_padded(&self, width: usize) -> usize {
        3 * width + 12 * self.n_fours + 16
    }

    /// Resizes one padded row of pixels with the short weights.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn resize_row_fast(&self, simd: Avx2, row: &[u8], output: &mut [u8]) {
        let outputs = output.as_chunks_mut::<3>().0.iter_mut();
        if self.n_fours == 1 {
            for ((start, weights), output) in self.starts.iter().zip(&self.short).zip(outputs) {
                let samples = &row[*start..][..16];
                *output = avx2::weighted_pixel_fast(simd, samples, std::slice::from_ref(weights));
            }
            return;
        }
        let weights = self.short.chunks_exact(self.n_fours);
        for ((start, weights), output) in self.starts.iter().zip(weights).zip(outputs) {
            let samples = &row[*start..][..12 * self.n_fours + 4];
            *output = avx2::weighted_pixel_fast(simd, samples, weights);
        }
    }

    /// Resizes one padded row of pixels.
    #[inline(always)]
    fn resize_row(&self, simd: Option<Avx2>, row: &[u8], output: &mut [u8]) {
        // So many taps as crops up to 3 times the view need have loops without a counter.
        match self.n_pairs {
            1 => self.resize_pairs::<1>(simd, row, output),
            2 => self.resize_pairs::<2>(simd, row, output),
            3 => self.resize_pairs::<3>(simd, row, output),
            4 => self.resize_pairs::<4>(simd, row, output),
            _ => self.resize_pairs::<0>(simd, row, output),
        }
    }

    /// The same for a number of pairs known in advance; 0 means it is not.
    #[inline(always)]
    fn resize_pairs<const N: usize>(&self, simd: Option<Avx2>, row: &[u8], output: &mut [u8]) {
        let n_pairs = if N == 0 { self.n_pairs } else { N };
        let outputs = output.as_chunks_mut::<3>().0.iter_mut();
        let weights = self.weights.chunks_exact(n_pairs);
        for ((start, weights), output) in self.starts.iter().zip(weights).zip(outputs) {
            let samples = &row[*start..][..6 * n_pairs + 2];
            *output = match simd {
                #[cfg(target_arch = "x86_64")]
                Some(simd) => avx2::weighted_pixel(simd, samples, weights),
                _ => weighted_pixel(samples, weights),
            };
        }
    }
}

/// The weighted mean of pixels.
#[inline(always)]
fn weighted_pixel(samples: &[u8], weights: &[[i32; 8]]) -> [u8; 3] {
    let mut sums = [HALF; 3];
    for (pair, weights) in samples.as_chunks::<6>().0.iter().zip(weights) {
        for (channel, sum) in sums.iter_mut().enumerate() {
            *sum += i32::from(pair[channel]) * weights[channel]
                + i32::from(pair[3 + channel]) * weights[3 + channel];
        }
    }
    sums.map(to_u8)
}

/// Bytes of four pixels in the order in which two and two are weighed: r r g g b b.
#[cfg(target_arch = "x86_64")]
const PAIRED: [u8; 16] = [0, 3, 1, 4, 2, 5, 128, 128, 6, 9, 7, 10, 8, 11, 128, 128];

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! The same with eight sums in a register.

    use std::arch::x86_64::{__m128i, __m256i};

    use pulp::cast;

    use super::{Filter, HALF, WEIGHT_BITS};
    use moco_jpeg::Avx2;

    /// Weights of 14 bits, four taps at a time: `[taps, 8]`, two for each of r, g, b and nothing, twice.
    #[inline(always)]
    pub(super) fn weighted_pixel_fast(
        simd: Avx2,
        samples: &[u8],
        weights: &[[i16; 16]],
    ) -> [u8; 3] {
        let mut sums: __m256i = cast([1 << 13, 1 << 13, 1 << 13, 0, 0, 0, 0, 0_i32]);
        for (i, weights) in weights.iter().enumerate() {
            let bytes = samples[12 * i..].first_chunk::<16>().copied().unwrap_or_default();
            let paired = simd.ssse3._mm_shuffle_epi8(cast(bytes), cast(super::PAIRED));
            let paired = simd.avx2._mm256_cvtepu8_epi16(paired);
            let products = simd.avx2._mm256_madd_epi16(paired, cast(*weights));
            sums = simd.avx2._mm256_add_epi32(sums, products);
        }
        let [low, high]: [__m128i; 2] = cast(sums);
        let pixel = simd.sse2._mm_srai_epi32::<14>(simd.sse2._mm_add_epi32(low, high));
        let pixel = simd.sse2._mm_packs_epi32(pixel, pixel);
        let pixel = simd.sse2._mm_packus_epi16(pixel, pixel);
        let [r, g, b, ..] = simd.sse2._mm_cvtsi128_si32(pixel).to_le_bytes();
        [r, g, b]
    }

    /// Weights of 14 bits, two rows at a time.
    #[inline(always)]
    pub(super) fn resize_columns(
        simd: Avx2,
        filter: &Filter,
        image: &[u8],
        stride: usize,
        resized: &mut [u8],
    ) {
        let simd2 = simd.avx2;
        let half = simd.avx._mm256_set1_epi32(1 << 13);
        for ((start, weights), output) in filter.taps().zip(resized.chunks_exact_mut(stride)) {
            let rows = &image[start * stride..][..weights.len() * stride];
            // The last block is moved left to end with the row; its samples are computed twice.
            let last = stride.saturating_sub(16);
            let mut at = 0;
            while at < stride {
                let from = at.min(last);
                let mut sums = [half; 2];
                for (pair, weights) in weights.chunks(2).enumerate() {
                    let row = |i: usize| -> __m128i {
                        let samples = rows.get((2 * pair + i) * stride + from..);
                        cast(
                            samples
                                .and_then(<[u8]>::first_chunk::<16>)
                                .copied()
                                .unwrap_or_default(),
                        )
                    };
                    let (a, b) = (row(0), row(1));
                    let weight = |i: usize| (weights.get(i).copied().unwrap_or(0) + 128) >> 8;
                    let factors = simd.avx._mm256_set1_epi32(weight(0) | weight(1) << 16);
                    let pairs =
                        [simd.sse2._mm_unpacklo_epi8(a, b), simd.sse2._mm_unpackhi_epi8(a, b)];
                    for (sum, pair) in sums.iter_mut().zip(pairs) {
                        let products =
                            simd2._mm256_madd_epi16(simd2._mm256_cvtepu8_epi16(pair), factors);
                        *sum = simd2._mm256_add_epi32(*sum, products);
                    }
                }
                let words = sums.map(|sum| {
                    let [low, high]: [__m128i; 2] = cast(simd2._mm256_srai_epi32::<14>(sum));
                    simd.sse2._mm_packs_epi32(low, high)
                });
                let bytes: [u8; 16] = cast(simd.sse2._mm_packus_epi16(words[0], words[1]));
                if let Some(out) = output.get_mut(from..from + 16) {
                    out.copy_from_slice(&bytes);
                } else {
                    let n = output.len();
                    output.copy_from_slice(&bytes[..n]);
                }
                at += 16;
            }
        }
    }

    #[inline(always)]
    pub(super) fn weighted_pixel(simd: Avx2, samples: &[u8], weights: &[[i32; 8]]) -> [u8; 3] {
        let mut sums: __m256i = cast([HALF, HALF, HALF, 0, 0, 0, 0, 0]);
        for (i, weights) in weights.iter().enumerate() {
            let bytes = samples[6 * i..].first_chunk::<8>().copied().unwrap_or_default();
            let samples = cast([u64::from_le_bytes(bytes), 0]);
            let samples = simd.avx2._mm256_cvtepu8_epi32(samples);
            let products = simd.avx2._mm256_mullo_epi32(samples, cast(*weights));
            sums = simd.avx2._mm256_add_epi32(sums, products);
        }
        let second: __m256i = cast([3, 4, 5, 5, 5, 5, 5, 5]);
        let second = simd.avx2._mm256_permutevar8x32_epi32(sums, second);
        let [sums, _]: [__m128i; 2] = cast(simd.avx2._mm256_add_epi32(sums, second));
        let pixel = simd.sse2._mm_srai_epi32::<{ WEIGHT_BITS as i32 }>(sums);
        let pixel = simd.sse2._mm_packs_epi32(pixel, pixel);
        let pixel = simd.sse2._mm_packus_epi16(pixel, pixel);
        let [r, g, b, ..] = simd.sse2._mm_cvtsi128_si32(pixel).to_le_bytes();
        [r, g, b]
    }
}

#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
fn to_u8(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(image: &RgbImage, width: u32, height: u32) -> RgbImage {
        let whole = CropBox::whole(image.width(), image.height());
        resize_part(image, &whole, Size { width, height }, Fidelity::Exact)
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
        let resized = resize_part(&image, &crop, Size { width: 9, height: 2 }, Fidelity::Exact);
        assert!(resized.pixels().iter().all(|v| *v == 50));
    }
}
