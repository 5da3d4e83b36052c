//! The entry of a trace for one operation.

/// One operation that a device did, and what it has to do at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// The operation of this crate.
    pub op: &'static str,
    /// The kernel, or what a library computes: `bn_moments_bf16`, `Forward_bf16`, `Product`.
    pub kernel: String,
    /// Of the convolution, or of the largest tensor.
    pub shape: String,
    /// From the end of the operation before to its own end.
    pub milliseconds: f32,
    /// Read and written, each tensor once.
    pub bytes: u64,
    /// Two for each multiply-add of convolutions and products, else 0.
    pub flops: u64,
}
