//! Loops compiled three times: for the processors of the build's target, for those with AVX2 and for those
//! with AVX-512.
//!
//! Which one runs is decided when the program runs, so a build for every x86-64 processor loses little.

#[cfg(target_arch = "x86_64")]
pub use pulp::x86::V3 as Avx2;

/// Proof that the processor has AVX2; here none ever has.
#[cfg(not(target_arch = "x86_64"))]
pub type Avx2 = std::convert::Infallible;

/// Runs `work` with the widest instructions known, and gives it the proof that they are there.
///
/// What `work` calls must be `#[inline(always)]`, or it is compiled for the build's target after all.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce(Option<Avx2>) -> R) -> R {
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
