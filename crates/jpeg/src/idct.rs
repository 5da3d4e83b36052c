//! The inverse cosine transform of libjpeg (`jidctint.c`), columns before rows, in 13-bit fixed point.

use crate::simd::Avx2;

/// Fraction bits of the constants.
const FRACTION: i32 = 13;
/// Fraction bits kept between the passes.
const BETWEEN: i32 = 2;

/// Eight numbers on which the same is done.
trait Lanes: Copy {
    type Numbers: Copy;
    fn add(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    fn sub(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    fn times(self, a: Self::Numbers, factor: i32) -> Self::Numbers;
    fn shift_left<const N: i32>(self, a: Self::Numbers) -> Self::Numbers;
    /// Divides by 2 to the Nth, rounding.
    fn descale<const N: i32>(self, a: Self::Numbers) -> Self::Numbers;
}

/// Dequantizes and transforms a block whose last coefficient in zigzag order is `last`, and writes its
/// 8 x 8 samples to rows `stride` apart.
#[inline(always)]
pub(crate) fn inverse(
    simd: Option<Avx2>,
    block: &[i16; 64],
    last: usize,
    quantization: &[u16; 64],
    samples: &mut [u8],
    stride: usize,
) {
    if last == 0 {
        #[expect(clippy::cast_possible_wrap, reason = "16-bit products wrap, as libjpeg-turbo's")]
        let dc = block[0].wrapping_mul(quantization[0] as i16);
        let sample = to_sample((i32::from(dc) + 4) >> 3);
        for row in samples.chunks_mut(stride).take(8) {
            row[..8].fill(sample);
        }
        return;
    }
    let rows = match simd {
        #[cfg(target_arch = "x86_64")]
        Some(simd) => avx2::inverse(simd, block, quantization),
        _ => portable(block, quantization),
    };
    for (row, values) in samples.chunks_mut(stride).zip(&rows) {
        row[..8].copy_from_slice(values);
    }
}

#[inline(always)]
fn to_sample(value: i32) -> u8 {
    #[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
    let sample = (value + 128).clamp(0, 255) as u8;
    sample
}

/// One pass over eight lines at once, one in each lane (T.81 leaves the method open; this is Loeffler's,
/// Ligtenberg's and Moschytz's, in libjpeg's order of operations).
#[inline(always)]
fn pass<L: Lanes, const DESCALE: i32>(l: L, line: [L::Numbers; 8]) -> [L::Numbers; 8] {
    let z1 = l.times(l.add(line[2], line[6]), 4433);
    let even2 = l.add(z1, l.times(line[6], -15137));
    let even3 = l.add(z1, l.times(line[2], 6270));
    let even0 = l.shift_left::<FRACTION>(l.add(line[0], line[4]));
    let even1 = l.shift_left::<FRACTION>(l.sub(line[0], line[4]));
    let sums = [l.add(even0, even3), l.add(even1, even2), l.sub(even1, even2), l.sub(even0, even3)];

    let [odd0, odd1, odd2, odd3] = [line[7], line[5], line[3], line[1]];
    let (z3, z4) = (l.add(odd0, odd2), l.add(odd1, odd3));
    let z5 = l.times(l.add(z3, z4), 9633);
    let z1 = l.times(l.add(odd0, odd3), -7373);
    let z2 = l.times(l.add(odd1, odd2), -20995);
    let z3 = l.add(l.times(z3, -16069), z5);
    let z4 = l.add(l.times(z4, -3196), z5);
    let odd = [
        l.add(l.times(odd3, 12299), l.add(z1, z4)),
        l.add(l.times(odd2, 25172), l.add(z2, z3)),
        l.add(l.times(odd1, 16819), l.add(z2, z4)),
        l.add(l.times(odd0, 2446), l.add(z1, z3)),
    ];
    let mut result = line;
    for i in 0..4 {
        result[i] = l.descale::<DESCALE>(l.add(sums[i], odd[i]));
        result[7 - i] = l.descale::<DESCALE>(l.sub(sums[i], odd[i]));
    }
    result
}

/// Eight numbers for any processor.
#[derive(Clone, Copy)]
struct Portable;

impl Lanes for Portable {
    type Numbers = [i32; 8];

    #[inline(always)]
    fn add(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn times(self, a: [i32; 8], factor: i32) -> [i32; 8] {
        a.map(|a| a.wrapping_mul(factor))
    }

    #[inline(always)]
    fn shift_left<const N: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a << N)
    }

    #[inline(always)]
    fn descale<const N: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a.wrapping_add(1 << (N - 1)) >> N)
    }
}

/// The block's rows of samples.
#[expect(clippy::cast_possible_wrap, reason = "16-bit products wrap, as libjpeg-turbo's")]
fn portable(block: &[i16; 64], quantization: &[u16; 64]) -> [[u8; 8]; 8] {
    let coefficient = |i: usize| i32::from(block[i].wrapping_mul(quantization[i] as i16));
    let rows = std::array::from_fn(|y| std::array::from_fn(|x| coefficient(8 * y + x)));
    let rows = pass::<_, { FRACTION - BETWEEN }>(Portable, rows);
    // libjpeg-turbo keeps 16 bits between the passes.
    let between = |x: i32| x.clamp(i16::MIN.into(), i16::MAX.into());
    let columns = std::array::from_fn(|x| std::array::from_fn(|y| between(rows[y][x])));
    let columns = pass::<_, { FRACTION + BETWEEN + 3 }>(Portable, columns);
    std::array::from_fn(|y| std::array::from_fn(|x| to_sample(columns[x][y])))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! The same with eight numbers in a register.

    use std::arch::x86_64::{__m128i, __m256i};

    use pulp::cast;

    use super::{BETWEEN, FRACTION, Lanes, pass};
    use crate::simd::Avx2;

    impl Lanes for Avx2 {
        type Numbers = __m256i;

        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_add_epi32(a, b)
        }

        #[inline(always)]
        fn sub(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_sub_epi32(a, b)
        }

        #[inline(always)]
        fn times(self, a: __m256i, factor: i32) -> __m256i {
            self.avx2._mm256_mullo_epi32(a, self.avx._mm256_set1_epi32(factor))
        }

        #[inline(always)]
        fn shift_left<const N: i32>(self, a: __m256i) -> __m256i {
            self.avx2._mm256_slli_epi32::<N>(a)
        }

        #[inline(always)]
        fn descale<const N: i32>(self, a: __m256i) -> __m256i {
            let half = self.avx._mm256_set1_epi32(1 << (N - 1));
            self.avx2._mm256_srai_epi32::<N>(self.avx2._mm256_add_epi32(a, half))
        }
    }

    #[inline(always)]
    pub(super) fn inverse(simd: Avx2, block: &[i16; 64], quantization: &[u16; 64]) -> [[u8; 8]; 8] {
        let (block, _) = block.as_chunks::<8>();
        let (quantization, _) = quantization.as_chunks::<8>();
        let row = |y: usize| {
            let (block, factors): (__m128i, __m128i) = (cast(block[y]), cast(quantization[y]));
            simd.sse2._mm_mullo_epi16(block, factors)
        };
        let rows = std::array::from_fn(row).map(|row| simd.avx2._mm256_cvtepi16_epi32(row));
        let rows = pass::<_, { FRACTION - BETWEEN }>(simd, rows);
        let columns = transpose(simd, narrow(simd, rows));
        let columns = columns.map(|column| simd.avx2._mm256_cvtepi16_epi32(column));
        let columns = pass::<_, { FRACTION + BETWEEN + 3 }>(simd, columns);
        let rows = transpose(simd, narrow(simd, columns));
        let center = simd.sse2._mm_set1_epi8(i8::MIN);
        let mut samples = [[0; 8]; 8];
        for (samples, [even, odd]) in
            samples.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks().0)
        {
            // Saturated around 0, then moved to 0 to 255.
            let pair = simd.sse2._mm_xor_si128(simd.sse2._mm_packs_epi16(*even, *odd), center);
            *samples = cast(pair);
        }
        samples
    }

    /// To 16 bits, saturating.
    #[inline(always)]
    fn narrow(simd: Avx2, lines: [__m256i; 8]) -> [__m128i; 8] {
        lines.map(|line| {
            let halves: [__m128i; 2] = cast(line);
            simd.sse2._mm_packs_epi32(halves[0], halves[1])
        })
    }

    #[inline(always)]
    fn transpose(simd: Avx2, r: [__m128i; 8]) -> [__m128i; 8] {
        let s = simd.sse2;
        let a = [
            s._mm_unpacklo_epi16(r[0], r[1]),
            s._mm_unpackhi_epi16(r[0], r[1]),
            s._mm_unpacklo_epi16(r[2], r[3]),
            s._mm_unpackhi_epi16(r[2], r[3]),
            s._mm_unpacklo_epi16(r[4], r[5]),
            s._mm_unpackhi_epi16(r[4], r[5]),
            s._mm_unpacklo_epi16(r[6], r[7]),
            s._mm_unpackhi_epi16(r[6], r[7]),
        ];
        let b = [
            s._mm_unpacklo_epi32(a[0], a[2]),
            s._mm_unpackhi_epi32(a[0], a[2]),
            s._mm_unpacklo_epi32(a[1], a[3]),
            s._mm_unpackhi_epi32(a[1], a[3]),
            s._mm_unpacklo_epi32(a[4], a[6]),
            s._mm_unpackhi_epi32(a[4], a[6]),
            s._mm_unpacklo_epi32(a[5], a[7]),
            s._mm_unpackhi_epi32(a[5], a[7]),
        ];
        [
            s._mm_unpacklo_epi64(b[0], b[4]),
            s._mm_unpackhi_epi64(b[0], b[4]),
            s._mm_unpacklo_epi64(b[1], b[5]),
            s._mm_unpackhi_epi64(b[1], b[5]),
            s._mm_unpacklo_epi64(b[2], b[6]),
            s._mm_unpackhi_epi64(b[2], b[6]),
            s._mm_unpacklo_epi64(b[3], b[7]),
            s._mm_unpackhi_epi64(b[3], b[7]),
        ]
    }
}
