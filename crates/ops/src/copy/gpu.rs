//! Copies to a GPU.

use candle_core::{CpuStorage, Storage, Tensor};

use crate::error::OpError;
use crate::gpu::Gpu;

/// Replaces a tensor by one of the same shape and type, both contiguous; see [`crate::copy_`].
pub(crate) fn copy(
    gpu: &dyn Gpu,
    op: &'static str,
    to: &Tensor,
    from: &Tensor,
) -> Result<(), OpError> {
    if from.device().same_device(to.device()) {
        return gpu.copy(op, to, from);
    }
    let (storage, layout) = from.storage_and_layout();
    let place = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
    let Storage::Cpu(storage) = &*storage else {
        return Err(OpError::Device { op, got: format!("{:?}", from.device().location()) });
    };
    let bytes: Vec<u8> = match storage {
        CpuStorage::U8(x) => x[place].to_vec(),
        CpuStorage::U32(x) => x[place].iter().flat_map(|x| x.to_ne_bytes()).collect(),
        CpuStorage::I64(x) => x[place].iter().flat_map(|x| x.to_ne_bytes()).collect(),
        CpuStorage::F32(x) => x[place].iter().flat_map(|x| x.to_ne_bytes()).collect(),
        CpuStorage::BF16(x) => x[place].iter().flat_map(|x| x.to_bits().to_ne_bytes()).collect(),
        _ => return Err(OpError::DType { op, tensor: "from", got: from.dtype() }),
    };
    gpu.write(op, to, &bytes)
}
