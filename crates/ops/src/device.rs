//! What a run wants to know of its device.

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
        Device::Cuda(device) => crate::cuda::peak_memory_bytes(device).map(Some),
        _ => Ok(None),
    }
}

/// Follows a choice whose results differ from one time to the next.
pub(crate) const BITS_VARY: &str = " (its bits vary)";

/// Of the choices of [`convolution_choices`] those without an algorithm that gives the same bits each time.
#[must_use]
pub fn varying_convolutions(choices: &str) -> Vec<&str> {
    choices.lines().filter(|line| line.ends_with(BITS_VARY)).collect()
}

/// The algorithm that a GPU's library was found to compute each convolution fastest by, as text; `None`
/// for the CPU. Algorithms differ in their bits, so a run that goes on in another process asks for the
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

/// Has convolutions that were not yet computed use these algorithms where the device has them. Nothing
/// on the CPU, which has one each.
///
/// # Errors
/// If the library is missing or the text is none of [`convolution_choices`].
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there is a CPU alone"))]
pub fn prefer_convolution_choices(device: &Device, choices: &str) -> Result<(), OpError> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::cuda::prefer_convolution_choices(device, choices),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_whose_bits_vary_are_found() {
        let choices = "Forward of a: 1\nForward of b: 2 (its bits vary)\nForward of c: 31\n";
        assert_eq!(varying_convolutions(choices), ["Forward of b: 2 (its bits vary)"]);
        assert!(varying_convolutions("").is_empty());
    }
}
