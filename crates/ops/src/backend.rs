//! Which GPU the operations on a tensor run on: the one place that knows the backends.

use std::rc::Rc;

use candle_core::{Device, Tensor};

use crate::error::OpError;
use crate::gpu::Gpu;

/// The GPU that the operations on a tensor run on; none if that is the CPU.
pub(crate) fn of(op: &'static str, x: &Tensor) -> Result<Option<Rc<dyn Gpu>>, OpError> {
    of_device(op, x.device())
}

/// The GPU that a device is; none if that is the CPU.
pub(crate) fn of_device(op: &'static str, device: &Device) -> Result<Option<Rc<dyn Gpu>>, OpError> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return crate::cuda::of(op, device).map(Some);
    }
    #[cfg(feature = "emulator")]
    if let Some(gpu) = crate::emulator::current() {
        return Ok(Some(gpu));
    }
    if device.is_cpu() { Ok(None) } else { Err(no_kernels(op, device)) }
}

/// The GPU that a device is, for operations that only make sense on one.
pub(crate) fn expect(op: &'static str, device: &Device) -> Result<Rc<dyn Gpu>, OpError> {
    of_device(op, device)?.ok_or_else(|| no_kernels(op, device))
}

fn no_kernels(op: &'static str, device: &Device) -> OpError {
    OpError::Device { op, got: format!("{:?}", device.location()) }
}

/// Returns the result of `function(gpu, args)` if the tensor is on a GPU: `on_gpu!(op, x, function, args)`.
macro_rules! on_gpu {
    ($op:expr, $x:expr, $function:path $(, $argument:expr)*) => {
        if let Some(gpu) = $crate::backend::of($op, $x)? {
            return $function(&*gpu $(, $argument)*);
        }
    };
}
pub(crate) use on_gpu;
