//! The exponential function in f32, as plain arithmetic that compilers turn into vector code.

/// Below this e^x is no normal number, and is replaced by 0.
const LOWEST: f32 = -87.336_54;
/// Above this the result stops growing; the next power of two is infinite.
const HIGHEST: f32 = 88.375;
/// Adding 1.5·2²³ rounds to a whole number and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has so few digits that its product with a whole number is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Of (e^r − 1 − r)/r² on |r| ≤ ln 2 / 2, highest power first (Cephes, `expf.c`).
const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// e^x to 2e-7 (relative) from −87.3 to 88.3; 0 below, e^88.375 above. NaN stays NaN.
///
/// Without fused multiply-adds, whose portable form calls a function for each number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let low = if x < LOWEST { LOWEST } else { x };
    let inside = if low > HIGHEST { HIGHEST } else { low };
    let shifted = inside * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (inside - n * LN_2[0]) - n * LN_2[1];
    let mut sum = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        sum = sum * r + coefficient;
    }
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    let power = (sum * (r * r) + r + 1.0) * two_to_n;
    if x < LOWEST { 0.0 } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::vectorize;

    /// Every 97th f32 of the range, as scalar and as vector code.
    #[test]
    fn is_the_exponential_to_2e_7() {
        let positive = (0..HIGHEST.to_bits()).step_by(97).map(f32::from_bits);
        let negative = (0..(-LOWEST).to_bits()).step_by(97).map(|bits| -f32::from_bits(bits));
        let all: Vec<f32> = positive.chain(negative).collect();
        let mut vector = all.clone();
        vectorize(|| vector.iter_mut().for_each(|x| *x = exp(*x)));
        let mut worst = 0.0_f64;
        for (x, got) in all.iter().zip(&vector) {
            let expected = f64::from(*x).exp();
            for got in [*got, exp(*x)] {
                worst = worst.max(((f64::from(got) - expected) / expected).abs());
            }
        }
        assert!(worst < 2e-7, "{worst:e}");
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(exp(f32::NAN).is_nan());
        for x in [-88.0, -1e6, f32::NEG_INFINITY] {
            assert_eq!(exp(x).to_bits(), 0);
        }
        for x in [89.0, f32::INFINITY] {
            assert_eq!(exp(x).to_bits(), exp(HIGHEST).to_bits());
        }
    }
}
