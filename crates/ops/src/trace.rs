//! How long a device takes for each operation.

use candle_core::Device;

use crate::error::OpError;

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

/// Does `work` with a mark on the device's stream around each operation of this crate that this thread asks
/// for; gives its result and the operations in order, after waiting for the device. A recording is not
/// traced, and the marks themselves take a few microseconds.
///
/// # Errors
/// If the device is none with marks (a CPU), or fails.
pub fn trace<R>(device: &Device, work: impl FnOnce() -> R) -> Result<(R, Vec<Traced>), OpError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::traced(device, work),
        other => {
            drop(work);
            Err(OpError::Device { op: "trace", got: format!("{:?}", other.location()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_no_trace() {
        let error = trace(&Device::Cpu, || ()).unwrap_err().to_string();
        assert!(error.starts_with("trace: no kernels for tensors on Cpu"), "{error}");
    }
}
