//! Rounding down in loops that vectorize.

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
