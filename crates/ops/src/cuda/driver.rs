//! The CUDA driver's errors and addresses.

use candle_core::cuda::cudarc::driver::DriverError;

use crate::error::OpError;

/// Names the op in which the driver failed.
pub(super) fn driver(op: &'static str) -> impl Fn(DriverError) -> OpError {
    move |error| OpError::Library { op, library: "the CUDA driver", what: error.to_string() }
}

/// A device's address as C writes it.
#[expect(clippy::cast_possible_truncation, reason = "CUDA has 64-bit hosts only")]
pub(super) fn pointer(address: u64) -> *mut std::ffi::c_void {
    std::ptr::without_provenance_mut(address as usize)
}
