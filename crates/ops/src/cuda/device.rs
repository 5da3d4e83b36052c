//! Opening a device with everything set that changes results or speed.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda::cudarc::cublas::sys as cublas;
use candle_core::cuda::cudarc::driver::{result, sys};
use candle_core::cuda::{
    DeviceId, set_gemm_reduced_precision_bf16, set_gemm_reduced_precision_f32,
};
use candle_core::{CudaDevice, Device};

use super::driver::{driver, pointer};
use crate::Precision;
use crate::device::ConvBackend;
use crate::error::{InOp, OpError};

const OP: &str = "opening a CUDA device";
/// NVIDIA's recommendation for Hopper; older devices need less.
const BLAS_WORKSPACE_BYTES: usize = 32 << 20;

/// The options that devices were opened with, for every thread that computes on them.
static BACKENDS: Mutex<Vec<(DeviceId, ConvBackend)>> = Mutex::new(Vec::new());

/// The CUDA device of this number, with one stream of its own, whose convolutions go through an interface
/// of cuDNN. How f32 is multiplied holds for the whole process.
///
/// # Errors
/// If there is no driver, no such device, or a library is missing.
#[expect(clippy::mem_forget, reason = "see below")]
pub fn open_cuda(
    ordinal: usize,
    precision: Precision,
    conv_backend: ConvBackend,
) -> Result<Device, OpError> {
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
    give_workspace(&device)?;
    let mut backends = BACKENDS.lock().unwrap_or_else(PoisonError::into_inner);
    backends.push((device.id(), conv_backend));
    drop(backends);
    // cudarc panics where it cannot destroy the handles of a device that failed, which would hide what had
    // failed; so they last as long as the process.
    std::mem::forget(device.clone());
    Ok(Device::Cuda(device))
}

/// What a device's convolutions go through; one that was opened elsewhere asked for nothing.
pub(super) fn conv_backend(device: &CudaDevice) -> ConvBackend {
    let backends = BACKENDS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = backends.iter().find(|(id, _)| *id == device.id());
    known.map_or(ConvBackend::Auto, |(_, backend)| *backend)
}

/// Gives cuBLAS its workspace once and for all: a library that asks the driver for one at each product
/// would do so in the middle of a recording.
fn give_workspace(device: &CudaDevice) -> Result<(), OpError> {
    // SAFETY: cuBLAS writes what it reads of it.
    let workspace = unsafe { device.alloc::<u8>(BLAS_WORKSPACE_BYTES) }.in_op(OP)?;
    // The handle lives as long as any tensor of the device; so does this.
    let workspace = workspace.leak();
    let blas = device.cublas_handle();
    // SAFETY: the handle is the device's, and so is the memory, which is never freed.
    let status = unsafe {
        cublas::cublasSetWorkspace_v2(*blas.handle(), pointer(workspace), BLAS_WORKSPACE_BYTES)
    };
    status.result().map_err(|error| OpError::Library {
        op: OP,
        library: "cuBLAS",
        what: error.to_string(),
    })
}

/// Gives memory that no tensor is in back to the system, and counts the peak of what is in use from here.
pub(super) fn trim(device: &CudaDevice) -> Result<(), OpError> {
    let mut zero = 0_u64;
    // SAFETY: the device exists, its default pool too, and the attribute is a u64.
    let statuses = unsafe {
        let pool = default_pool(device)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let mark = std::ptr::from_mut(&mut zero).cast();
        [sys::cuMemPoolTrimTo(pool, 0), sys::cuMemPoolSetAttribute(pool, attribute, mark)]
    };
    statuses.into_iter().try_for_each(|status| status.result().map_err(driver("trimming memory")))
}

/// Most memory that tensors, libraries' workspaces and recorded work took on a device at a time since the
/// last [`trim`].
///
/// # Errors
/// If the driver does not report it.
pub(super) fn peak_memory_bytes(device: &CudaDevice) -> Result<u64, OpError> {
    const OP: &str = "peak memory";
    let (mut in_pool, mut in_graphs) = (0_u64, 0_u64);
    let cu_device = device.cuda_stream().context().cu_device();
    // SAFETY: the device exists, its default pool too, and the attributes are u64.
    let statuses = unsafe {
        [
            sys::cuMemPoolGetAttribute(
                default_pool(device)?,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
                std::ptr::from_mut(&mut in_pool).cast(),
            ),
            sys::cuDeviceGetGraphMemAttribute(
                cu_device,
                sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH,
                std::ptr::from_mut(&mut in_graphs).cast(),
            ),
        ]
    };
    for status in statuses {
        status.result().map_err(driver(OP))?;
    }
    Ok(in_pool + in_graphs)
}

/// # Safety
/// The device exists.
unsafe fn default_pool(device: &CudaDevice) -> Result<sys::CUmemoryPool, OpError> {
    // SAFETY: promised by the caller.
    unsafe { result::device::get_default_mem_pool(device.cuda_stream().context().cu_device()) }
        .map_err(driver(OP))
}
