//! Vectors of the running CPU: AVX-512, AVX2 with FMA, or portable arrays, chosen at run time, so that
//! a portable build loses nothing.

use candle_core::WithDType;

/// A vector of `LANES` numbers. All methods are `#[inline(always)]`, so that they take on the CPU
/// features of the function they end up in.
pub(crate) trait Vector: Copy {
    type Scalar: Copy;
    const LANES: usize;
    fn zero() -> Self;
    /// # Safety
    /// `LANES` numbers can be read at `from`, and the CPU has this vector's features.
    unsafe fn load(from: *const Self::Scalar) -> Self;
    /// # Safety
    /// `LANES` numbers can be written at `to`, and the CPU has this vector's features.
    unsafe fn store(self, to: *mut Self::Scalar);
    /// # Safety
    /// One number can be read at `from`, and the CPU has this vector's features.
    unsafe fn splat(from: *const Self::Scalar) -> Self;
    /// `self + a·b`.
    ///
    /// # Safety
    /// The CPU has this vector's features.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    ///
    /// # Safety
    /// The CPU has this vector's features.
    unsafe fn add(self, other: Self) -> Self;
}

macro_rules! x86_vector {
    ($name:ident, $register:ident, $scalar:ty, $lanes:literal,
     $zero:ident, $load:ident, $store:ident, $splat:ident, $fma:ident, $add:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[derive(Clone, Copy)]
        pub(crate) struct $name(std::arch::x86_64::$register);

        #[cfg(target_arch = "x86_64")]
        impl Vector for $name {
            type Scalar = $scalar;
            const LANES: usize = $lanes;
            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: the all-zero bit pattern is a valid vector of zeros.
                Self(unsafe { std::mem::zeroed() })
            }
            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: promised by the caller.
                Self(unsafe { std::arch::x86_64::$load(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $scalar) {
                // SAFETY: promised by the caller.
                unsafe { std::arch::x86_64::$store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn splat(from: *const $scalar) -> Self {
                // SAFETY: promised by the caller.
                Self(unsafe { std::arch::x86_64::$splat(*from) })
            }
            #[inline(always)]
            unsafe fn mul_add(self, a: Self, b: Self) -> Self {
                // SAFETY: promised by the caller.
                Self(unsafe { std::arch::x86_64::$fma(a.0, b.0, self.0) })
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: promised by the caller.
                Self(unsafe { std::arch::x86_64::$add(self.0, other.0) })
            }
        }
    };
}

x86_vector!(
    F32x16,
    __m512,
    f32,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);
x86_vector!(
    F64x8,
    __m512d,
    f64,
    8,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm512_add_pd
);
x86_vector!(
    F32x8,
    __m256,
    f32,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);
x86_vector!(
    F64x4,
    __m256d,
    f64,
    4,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd
);

/// Eight numbers that the compiler turns into whatever vectors the target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable<T>([T; 8]);

impl<T: Float> Vector for Portable<T> {
    type Scalar = T;
    const LANES: usize = 8;
    #[inline(always)]
    fn zero() -> Self {
        Self([T::zero(); 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: promised by the caller; an array has the alignment of its element.
        Self(unsafe { from.cast::<[T; 8]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: promised by the caller.
        unsafe { to.cast::<[T; 8]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const T) -> Self {
        // SAFETY: promised by the caller.
        Self([unsafe { *from }; 8])
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

/// The instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    Avx512,
    Avx2,
    Portable,
}

/// The best instruction set of this CPU.
pub(crate) fn isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return Isa::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

/// The name of the instruction set that kernels use on this CPU: `avx512`, `avx512f` (which lacks parts that loops
/// beside the kernels use), `avx2` or `portable`. Results have the same bits on machines with the same name.
#[must_use]
pub fn instruction_set() -> &'static str {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512
            if !is_x86_feature_detected!("avx512dq") || !is_x86_feature_detected!("avx512vl") =>
        {
            "avx512f"
        }
        Isa::Avx512 => "avx512",
        Isa::Avx2 => "avx2",
        Isa::Portable => "portable",
    }
}

/// Runs plain loops compiled for the best instruction set of this CPU. Pass a closure that is marked
/// `#[inline(always)]` or is small enough to be inlined.
#[inline(always)]
pub(crate) fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        let isa = isa();
        let is_full = is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl");
        match isa {
            // SAFETY: `isa` found avx512f, the line above dq and vl; avx2 and fma come with them.
            Isa::Avx512 if is_full => unsafe { avx512(work) },
            // SAFETY: each CPU with avx512f has avx2 and fma; otherwise `isa` found them.
            Isa::Avx512 | Isa::Avx2 => unsafe { avx2(work) },
            Isa::Portable => work(),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    work()
}

/// f32 and f64: the numbers that every CPU op works on.
pub(crate) trait Float:
    WithDType + std::ops::Neg<Output = Self> + std::iter::Sum<Self>
{
    type V512: Vector<Scalar = Self>;
    type V256: Vector<Scalar = Self>;
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
    /// The larger of this and 0; NaN stays NaN.
    fn relu(self) -> Self;
    /// e to the power of this: libm's in f64, [`crate::exp::exp`] in f32.
    fn exp(self) -> Self;
}

macro_rules! float {
    ($t:ty, $v512:ty, $v256:ty, $exp:path) => {
        impl Float for $t {
            #[cfg(target_arch = "x86_64")]
            type V512 = $v512;
            #[cfg(target_arch = "x86_64")]
            type V256 = $v256;
            #[cfg(not(target_arch = "x86_64"))]
            type V512 = Portable<$t>;
            #[cfg(not(target_arch = "x86_64"))]
            type V256 = Portable<$t>;
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn relu(self) -> Self {
                if self < 0.0 { 0.0 } else { self }
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
        }
    };
}

float!(f32, F32x16, F32x8, crate::exp::exp);
float!(f64, F64x8, F64x4, f64::exp);
