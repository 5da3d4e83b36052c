//! The formula that fills the inputs of the golden files, and the fingerprint of their outputs; see
//! `golden/README.md`.

/// A pseudo-random number in [-1, 1) for each element of a named tensor.
pub(crate) fn fill(name: &str, len: usize) -> Vec<f64> {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let number = |i: u64| {
        let mut z = start.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / 4_503_599_627_370_496.0 - 1.0
    };
    (0..len as u64).map(number).collect()
}
