//! How closely a view follows Pillow.

/// How closely a view follows Pillow, given the same parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fidelity {
    /// Bit-exact, decoding included.
    #[default]
    Exact,
    /// Decoded bit-exactly; resizing has 14-bit weights, and jitter does not round between its blends.
    /// `docs/augmentation.md` has the differences, `tests/fidelity.rs` asserts them.
    Fast,
}
