//! Loops compiled three times: for the processors of the build's target, for those with AVX2 and for those
//! with AVX-512.
//!
//! Which one runs is decided when the program runs, so a build for every x86-64 processor loses little.

#[cfg(target_arch = "x86_64")]
pub(crate) use pulp::x86::V3 as Avx2;

/// Proof that the processor has AVX2; here none ever has.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) type Avx2 = std::convert::Infallible;

/// Runs `work` with the widest instructions known, and gives it the proof that they are there.
///
/// What `work` calls must be `#[inline(always)]`, or it is compiled for the build's target after all.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce(Option<Avx2>) -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        // What is written for AVX2 stays so; what the compiler vectorizes gets more registers and masks.
        return simd.vectorize(
            #[inline(always)]
            || work(Some(*simd)),
        );
    } else if let Some(simd) = Avx2::try_new() {
        return simd.vectorize(
            #[inline(always)]
            || work(Some(simd)),
        );
    }
    work(None)
}

/// The whole part of a number from 0 to 2 to the 22nd.
///
/// A cast from f32 to an integer saturates in Rust, and that does not vectorize; this does.
#[inline(always)]
pub(crate) fn whole(x: f32) -> i32 {
    // Adding this leaves no bits for a fraction, so the sum is rounded to a whole number.
    const NO_FRACTION: f32 = 8_388_608.0;
    let rounded = x + NO_FRACTION - NO_FRACTION;
    let floor = if rounded > x { rounded - 1.0 } else { rounded };
    #[expect(clippy::cast_possible_wrap, reason = "23 bits")]
    let whole = ((floor + NO_FRACTION).to_bits() & 0x007f_ffff) as i32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_part_is_what_the_cast_gives() {
        for i in 0..100_000 {
            let x = i as f32 * 0.00317;
            assert_eq!(whole(x), x as i32, "{x}");
        }
        assert_eq!([0.0, 0.5, 1.0, 1.5, 254.999_98, 255.0].map(whole), [0, 0, 1, 1, 254, 255]);
    }
}
