//! Copies that wait for no device.

mod gpu;

use candle_core::{Device, Tensor};

use crate::backend::{self, on_gpu};
use crate::dense::expect_shape;
use crate::error::{InOp, OpError};
use crate::update::expect_contiguous;

const OP: &str = "copy";

/// Replaces the numbers of `to` by those of `from`, which has the same shape and type and is on the same
/// device or in the host's memory. Images and activations `[N, C, H, W]` have channels last in memory;
/// other tensors are contiguous.
///
/// # Errors
/// If the shapes or types differ, or a tensor has another order in memory.
pub fn copy_(to: &Tensor, from: &Tensor) -> Result<(), OpError> {
    expect_shape(OP, "from", from, to.dims())?;
    if from.dtype() != to.dtype() {
        return Err(OpError::DType { op: OP, tensor: "from", got: from.dtype() });
    }
    let [to, from] = [in_memory_order("to", to)?, in_memory_order("from", from)?];
    on_gpu!(OP, &to, gpu::copy, OP, &to, &from);
    to.slice_set(&from, 0, 0).in_op(OP)
}

/// A small tensor of the host on a device.
///
/// # Errors
/// If there is no room.
pub fn upload(x: &Tensor, device: &Device) -> Result<Tensor, OpError> {
    const OP: &str = "upload";
    let Some(gpu) = backend::of_device(OP, device)? else { return Ok(x.clone()) };
    let on_device = gpu.alloc(OP, x.dims(), x.dtype())?;
    gpu::copy(&*gpu, OP, &on_device, x)?;
    Ok(on_device)
}

/// The numbers one after the other in the order of memory.
fn in_memory_order(name: &'static str, x: &Tensor) -> Result<Tensor, OpError> {
    let x = if x.rank() == 4 { x.permute((0, 2, 3, 1)).in_op(OP)? } else { x.clone() };
    expect_contiguous(OP, name, &x)?;
    x.flatten_all().in_op(OP)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn counted(dims: &[usize]) -> Tensor {
        let n: usize = dims.iter().product();
        let numbers: Vec<u32> = (0..n).map(|i| i as u32 + 1).collect();
        Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
    }

    #[test]
    fn replaces_numbers_where_they_are() {
        let all = Tensor::zeros((4, 3), DType::U32, &Device::Cpu).unwrap();
        copy_(&all.narrow(0, 1, 2).unwrap(), &counted(&[2, 3])).unwrap();
        let expected = [[0, 0, 0], [1, 2, 3], [4, 5, 6], [0, 0, 0]];
        assert_eq!(all.to_vec2::<u32>().unwrap(), expected);
        let channels_last = |x: Tensor| x.permute((0, 3, 1, 2)).unwrap();
        let to = channels_last(Tensor::zeros((2, 2, 1, 3), DType::U32, &Device::Cpu).unwrap());
        let from = channels_last(counted(&[2, 2, 1, 3]));
        copy_(&to, &from).unwrap();
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(numbers(&to), numbers(&from));
        assert_eq!(numbers(&upload(&from, &Device::Cpu).unwrap()), numbers(&from));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |to: &Tensor, from: &Tensor| copy_(to, from).unwrap_err().to_string();
        let x = counted(&[2, 3]);
        assert!(error(&x, &counted(&[3, 2])).contains("`from` has shape [3, 2], expected [2, 3]"));
        assert!(error(&x, &x.to_dtype(DType::F32).unwrap()).contains("`from` is F32"));
        assert!(error(&x.t().unwrap(), &counted(&[3, 2])).contains("`to` is a strided view"));
        let rows = counted(&[1, 2, 2, 2]);
        assert!(error(&rows, &counted(&[1, 2, 2, 2])).contains("`to` is a strided view"));
    }
}
