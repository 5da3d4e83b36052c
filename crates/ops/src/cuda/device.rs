//! Opening a device with everything set that changes results or speed.

use candle_core::cuda::cudarc::driver::{result, sys};
use candle_core::cuda::{set_gemm_reduced_precision_bf16, set_gemm_reduced_precision_f32};
use candle_core::{CudaDevice, Device};

use super::driver;
use crate::Precision;
use crate::error::{InOp, OpError};

const OP: &str = "opening a CUDA device";

/// The CUDA device of this number, with one stream of its own. How f32 is multiplied holds for the
/// whole process.
///
/// # Errors
/// If there is no driver, no such device, or a library is missing.
pub fn open_cuda(ordinal: usize, precision: Precision) -> Result<Device, OpError> {
    set_gemm_reduced_precision_f32(precision == Precision::Tf32);
    // Sums of bf16 products are in f32.
    set_gemm_reduced_precision_bf16(false);
    let device = CudaDevice::new_with_stream(ordinal).in_op(OP)?;
    // SAFETY: all tensors are used on this device's one stream; uploads hand over by an event.
    unsafe { device.disable_event_tracking() };
    let mut keep = u64::MAX;
    // SAFETY: the device exists, its default pool too, and the attribute is a u64. Without it the pool
    // would give its memory back to the system whenever the host waits for the device.
    unsafe {
        let pool = default_pool(&device)?;
        result::mem_pool::set_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            std::ptr::from_mut(&mut keep).cast(),
        )
        .map_err(driver(OP))?;
    }
    Ok(Device::Cuda(device))
}

/// Most memory that tensors and libraries' workspaces ever took on a device at a time.
///
/// # Errors
/// If the driver does not tell.
pub(crate) fn peak_memory_bytes(device: &CudaDevice) -> Result<u64, OpError> {
    let mut bytes = 0_u64;
    // SAFETY: the device exists, its default pool too, and the attribute is a u64.
    let status = unsafe {
        let pool = default_pool(device)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(&mut bytes).cast())
    };
    status.result().map_err(driver("peak memory"))?;
    Ok(bytes)
}

/// # Safety
/// The device exists.
unsafe fn default_pool(device: &CudaDevice) -> Result<sys::CUmemoryPool, OpError> {
    // SAFETY: promised by the caller.
    unsafe { result::device::get_default_mem_pool(device.cuda_stream().context().cu_device()) }
        .map_err(driver(OP))
}
