//! The inverse cosine transform of libjpeg (`jidctint.c`), columns before rows, in 13-bit fixed point.

use crate::block::NATURAL;
use crate::simd::Avx2;

/// Fraction bits of the constants.
const FRACTION: i32 = 13;
/// Fraction bits kept between the passes.
const BETWEEN: i32 = 2;

/// Eight numbers of 32 bits on which the same is done.
trait Lanes: Copy {
    type Numbers: Copy;
    fn add(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    fn sub(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    /// The lower 16 bits of each of two numbers, as libjpeg-turbo multiplies.
    fn pair(self, a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    /// The sum of the products of a pair with two factors.
    fn dot(self, pair: Self::Numbers, factors: [i16; 2]) -> Self::Numbers;
    /// Divides by 2 to the Nth, rounding.
    fn descale<const N: i32>(self, a: Self::Numbers) -> Self::Numbers;
}

/// Dequantizes and transforms a block whose last coefficient that is not 0 is `last` in zigzag order, and
/// writes its 8 x 8 samples to rows `stride` apart.
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
        let sample = to_sample((i32::from(first_row(block, quantization)[0]) + 16) >> 5);
        for row in samples.chunks_mut(stride).take(8) {
            row[..8].fill(sample);
        }
        return;
    }
    // libjpeg-turbo takes a shorter way where the lower rows are 0, on which other bits overflow.
    let is_one_row = NATURAL[last] < 8 && block[8..].iter().all(|coefficient| *coefficient == 0);
    let columns = is_one_row.then(|| first_row(block, quantization));
    let rows = match simd {
        #[cfg(target_arch = "x86_64")]
        Some(simd) => avx2::inverse(simd, block, quantization, columns),
        _ => portable(block, quantization, columns),
    };
    for (row, values) in samples.chunks_mut(stride).zip(&rows) {
        row[..8].copy_from_slice(values);
    }
}

/// What [`inverse`] needs to know of a block's last coefficient, for one whose coefficients came in any order.
#[inline(always)]
pub(crate) fn last_of(block: &[i16; 64]) -> usize {
    let is_zero = |coefficients: &[i16]| coefficients.iter().all(|coefficient| *coefficient == 0);
    match (is_zero(&block[8..]), is_zero(&block[1..8])) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 63,
    }
}

/// What the first pass makes of a block that is 0 below its first row: columns of equal numbers.
#[inline(always)]
#[expect(clippy::cast_possible_wrap, reason = "16-bit products wrap, as libjpeg-turbo's")]
fn first_row(block: &[i16; 64], quantization: &[u16; 64]) -> [i16; 8] {
    std::array::from_fn(|x| block[x].wrapping_mul(quantization[x] as i16) << BETWEEN)
}

#[inline(always)]
fn to_sample(value: i32) -> u8 {
    #[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
    let sample = (value + 128).clamp(0, 255) as u8;
    sample
}

/// One pass over eight lines at once, one in each lane (T.81 leaves the method open; this is Loeffler's,
/// Ligtenberg's and Moschytz's, in libjpeg's order of operations).
///
/// Where libjpeg-turbo adds numbers of 16 bits before it multiplies, the sum wraps as its does.
#[inline(always)]
fn pass<L: Lanes, const DESCALE: i32>(l: L, line: [L::Numbers; 8]) -> [L::Numbers; 8] {
    let pair = l.pair(line[2], line[6]);
    let (even3, even2) = (l.dot(pair, [10703, 4433]), l.dot(pair, [4433, -10704]));
    let even0 = l.dot(l.add(line[0], line[4]), [1 << FRACTION, 0]);
    let even1 = l.dot(l.sub(line[0], line[4]), [1 << FRACTION, 0]);
    let sums = [l.add(even0, even3), l.add(even1, even2), l.sub(even1, even2), l.sub(even0, even3)];

    let pair = l.pair(l.add(line[7], line[3]), l.add(line[5], line[1]));
    let (z3, z4) = (l.dot(pair, [-6436, 9633]), l.dot(pair, [9633, 6437]));
    let (outer, inner) = (l.pair(line[7], line[1]), l.pair(line[5], line[3]));
    let odd = [
        l.add(l.dot(outer, [-7373, 4926]), z4),
        l.add(l.dot(inner, [-20995, 4177]), z3),
        l.add(l.dot(inner, [-4176, -20995]), z4),
        l.add(l.dot(outer, [-4927, -7373]), z3),
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
    fn pair(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| (a[i] & 0xffff) | (b[i] << 16))
    }

    #[inline(always)]
    fn dot(self, pair: [i32; 8], factors: [i16; 2]) -> [i32; 8] {
        let [low, high] = factors.map(i32::from);
        pair.map(|pair| (i32::from(pair as i16) * low).wrapping_add((pair >> 16) * high))
    }

    #[inline(always)]
    fn descale<const N: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a.wrapping_add(1 << (N - 1)) >> N)
    }
}

/// The block's rows of samples.
#[expect(clippy::cast_possible_wrap, reason = "16-bit products wrap, as libjpeg-turbo's")]
fn portable(
    block: &[i16; 64],
    quantization: &[u16; 64],
    columns: Option<[i16; 8]>,
) -> [[u8; 8]; 8] {
    let coefficient = |i: usize| i32::from(block[i].wrapping_mul(quantization[i] as i16));
    let columns = if let Some(columns) = columns {
        columns.map(|column| [i32::from(column); 8])
    } else {
        let rows = std::array::from_fn(|y| std::array::from_fn(|x| coefficient(8 * y + x)));
        let rows = pass::<_, { FRACTION - BETWEEN }>(Portable, rows);
        // libjpeg-turbo keeps 16 bits between the passes.
        let between = |x: i32| x.clamp(i16::MIN.into(), i16::MAX.into());
        std::array::from_fn(|x| std::array::from_fn(|y| between(rows[y][x])))
    };
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
        fn pair(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_blend_epi16::<0b1010_1010>(a, self.avx2._mm256_slli_epi32::<16>(b))
        }

        #[inline(always)]
        fn dot(self, pair: __m256i, factors: [i16; 2]) -> __m256i {
            let factors = self.avx._mm256_set1_epi32(cast(factors));
            self.avx2._mm256_madd_epi16(pair, factors)
        }

        #[inline(always)]
        fn descale<const N: i32>(self, a: __m256i) -> __m256i {
            let half = self.avx._mm256_set1_epi32(1 << (N - 1));
            self.avx2._mm256_srai_epi32::<N>(self.avx2._mm256_add_epi32(a, half))
        }
    }

    #[inline(always)]
    pub(super) fn inverse(
        simd: Avx2,
        block: &[i16; 64],
        quantization: &[u16; 64],
        columns: Option<[i16; 8]>,
    ) -> [[u8; 8]; 8] {
        let (block, _) = block.as_chunks::<8>();
        let (quantization, _) = quantization.as_chunks::<8>();
        let row = |y: usize| {
            let (block, factors): (__m128i, __m128i) = (cast(block[y]), cast(quantization[y]));
            simd.sse2._mm_mullo_epi16(block, factors)
        };
        let columns = if let Some(columns) = columns {
            columns.map(|column| simd.sse2._mm_set1_epi16(column))
        } else {
            let rows = std::array::from_fn(row).map(|row| simd.avx2._mm256_cvtepi16_epi32(row));
            let rows = pass::<_, { FRACTION - BETWEEN }>(simd, rows);
            transpose(simd, narrow(simd, rows))
        };
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
