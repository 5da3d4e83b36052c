//! What a run took of its device.

use candle_core::Device;

use crate::error::OpError;

/// Most memory that tensors and libraries' workspaces took on a device at a time, in bytes; `None` for the
/// CPU, whose process knows.
///
/// # Errors
/// If the driver does not tell.
pub fn peak_device_memory_bytes(device: &Device) -> Result<Option<u64>, OpError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::device::peak_memory_bytes(device).map(Some),
        _ => Ok(None),
    }
}
