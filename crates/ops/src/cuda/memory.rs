//! Tensors as memory of a device.

use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr as _, DeviceRepr};
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
    Ok(tensor(device, slice, dims))
}

/// Memory as a tensor.
pub(super) fn tensor<T: CudaDType>(
    device: &CudaDevice,
    slice: CudaSlice<T>,
    dims: &[usize],
) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(slice, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), dims, BackpropOp::none(), false)
}

/// Where a tensor is on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Where the memory begins that the tensor is in.
    pub(super) memory: u64,
    /// Where its numbers begin.
    pub(super) start: u64,
}

/// Where a contiguous tensor is.
pub(super) fn place(device: &CudaDevice, x: &Tensor) -> Result<Place> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("a tensor on {:?} among those of {device:?}", x.device().location());
    };
    if !layout.is_contiguous() {
        bail!("a strided view has no kernel");
    }
    let stream = device.cuda_stream();
    let memory = match x.dtype() {
        DType::U8 => storage.as_cuda_slice::<u8>()?.device_ptr(&stream).0,
        DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
        DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(&stream).0,
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
        other => bail!("no kernel takes {other:?}"),
    };
    let start = memory + (layout.start_offset() * x.dtype().size_in_bytes()) as u64;
    Ok(Place { memory, start })
}
