//! The peak rate of the CPU.

use crate::simd::{Float, Isa, Portable, Vector, isa};

/// Sums that are in flight at once: latency times issue rate of current CPUs, and no more than registers.
const SUMS: usize = 12;

/// Does at least this many floating-point operations as fused multiply-adds in registers, on each thread
/// of the pool; gives how many it did in all. Timed, it is the peak that kernels are measured against.
#[must_use]
pub fn multiply_adds(operations: u64) -> u64 {
    rayon::broadcast(|_| {
        // SAFETY: the instruction set was detected.
        unsafe {
            match isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => avx512(operations),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2(operations),
                _ => chains::<Portable<f32>>(operations),
            }
        }
    })
    .into_iter()
    .sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(operations: u64) -> u64 {
    // SAFETY: the caller's promise is passed on.
    unsafe { chains::<<f32 as Float>::V512>(operations) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(operations: u64) -> u64 {
    // SAFETY: the caller's promise is passed on.
    unsafe { chains::<<f32 as Float>::V256>(operations) }
}

/// # Safety
/// The CPU has the features of `V`.
#[inline(always)]
unsafe fn chains<V: Vector<Scalar = f32>>(operations: u64) -> u64 {
    let per_round = (2 * SUMS * V::LANES) as u64;
    let rounds = operations.div_ceil(per_round);
    // SAFETY: references to numbers can be read; the caller promises the features.
    unsafe {
        let (factor, addend) = (V::splat(&0.999), V::splat(&1e-3));
        let mut sums = [V::zero(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = addend.mul_add(*sum, factor);
            }
        }
        std::hint::black_box(sums.map(|sum| {
            let mut numbers = [0.0_f32; 16];
            sum.store(numbers.as_mut_ptr());
            numbers
        }));
    }
    rounds * per_round
}
