//! Tensors as memory of a device.

use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{DevicePtr as _, DeviceRepr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Result, Storage, Tensor, bail};
use half::bf16;

/// Contiguous memory that nothing was written to.
pub(super) fn alloc(device: &CudaDevice, dims: &[usize], dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::U8 => of::<u8>(device, dims),
        DType::U32 => of::<u32>(device, dims),
        DType::I64 => of::<i64>(device, dims),
        DType::F32 => of::<f32>(device, dims),
        DType::BF16 => of::<bf16>(device, dims),
        other => bail!("no kernel writes {other:?}"),
    }
}

fn of<T: CudaDType + DeviceRepr>(device: &CudaDevice, dims: &[usize]) -> Result<Tensor> {
    // SAFETY: the caller is about to have a kernel write all of it.
    let slice = unsafe { device.alloc::<T>(dims.iter().product())? };
    let storage = CudaStorage::wrap_cuda_slice(slice, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(storage), dims, BackpropOp::none(), false))
}

/// Where the numbers of a contiguous tensor begin.
pub(super) fn address(device: &CudaDevice, x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("a tensor on {:?} among those of {device:?}", x.device().location());
    };
    if !layout.is_contiguous() {
        bail!("a strided view has no kernel");
    }
    let stream = device.cuda_stream();
    let start = match x.dtype() {
        DType::U8 => storage.as_cuda_slice::<u8>()?.device_ptr(&stream).0,
        DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
        DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(&stream).0,
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
        other => bail!("no kernel takes {other:?}"),
    };
    Ok(start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64)
}

/// A copy on the device, as i64. The driver takes numbers in pageable memory before it returns, so they
/// need not outlive the call.
pub(super) fn upload(device: &CudaDevice, numbers: &[u64]) -> Result<Tensor> {
    let numbers: Vec<i64> = numbers.iter().map(|number| number.cast_signed()).collect();
    let slice = device.clone_htod(&numbers)?;
    let storage = CudaStorage::wrap_cuda_slice(slice, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(storage), numbers.len(), BackpropOp::none(), false))
}
