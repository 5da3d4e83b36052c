//! Queries about the device of a run.

pub(crate) mod choices;
mod precision;

use candle_core::Device;

pub use self::choices::{ConvBackend, OutdatedChoices, varying_convolutions};
pub use self::precision::Precision;
use crate::error::OpError;

/// Most memory that tensors and libraries' workspaces took on a device at a time, in bytes; `None` for the
/// CPU, whose process knows.
///
/// # Errors
/// If the driver does not report it.
pub fn peak_device_memory_bytes(device: &Device) -> Result<Option<u64>, OpError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::peak_memory_bytes(device).map(Some),
        _ => Ok(None),
    }
}

/// The cuDNN algorithm chosen for each convolution shape, one per line; `None` for the CPU.
/// Algorithms differ in their bits, so a run that continues in another process asks for the
/// same ones by [`prefer_convolution_choices`]. Both are about the calling thread.
///
/// # Errors
/// If the library is missing.
pub fn convolution_choices(device: &Device) -> Result<Option<String>, OpError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::convolution_choices(device).map(Some),
        _ => Ok(None),
    }
}

/// Has convolutions that were not yet computed use these algorithms where the device has them, unless
/// another library or device chose them, which is reported. Nothing on the CPU, which has one each.
///
/// # Errors
/// If the library is missing or the text is none of [`convolution_choices`].
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there is only a CPU"))]
pub fn prefer_convolution_choices(
    device: &Device,
    choices: &str,
) -> Result<Option<OutdatedChoices>, OpError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::prefer_convolution_choices(device, choices),
        _ => Ok(None),
    }
}
