//! What a run wants to know of its device.

use candle_core::Device;

use crate::error::OpError;

/// The interface of its library that a GPU's convolutions are computed through. A CPU has one way, whatever
/// is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvBackend {
    /// The faster one: the legacy one, until a device has measured both.
    Auto,
    /// cuDNN's list of algorithms for each direction.
    Legacy,
    /// cuDNN's graphs of operations, which engines compute.
    Graph,
}

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

/// Choices of algorithms that are not taken, since another library or device made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutdatedChoices {
    /// Who made them: the interface, the version of its library, and the device.
    pub chosen_by: String,
    /// Who chooses here.
    pub here: String,
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

/// Has convolutions that were not yet computed use these algorithms where the device has them, unless
/// another library or device chose them, which is told. Nothing on the CPU, which has one each.
///
/// # Errors
/// If the library is missing or the text is none of [`convolution_choices`].
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there is a CPU alone"))]
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
