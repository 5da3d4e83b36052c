//! How long a device takes for each operation.

mod traced;

use candle_core::Device;

pub use self::traced::Traced;
use crate::error::OpError;

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
