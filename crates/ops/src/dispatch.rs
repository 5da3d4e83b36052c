//! Which way an operation goes: to the GPU that its tensor is on, or on to the CPU.

use candle_core::Tensor;

use crate::error::OpError;

/// Calls `gpu::function(gpu, args)` and returns its result if the tensor is on a GPU:
/// `on_gpu!(op, x, module::function, args)`.
macro_rules! on_gpu {
    ($op:expr, $x:expr, $($function:ident)::+ $(, $argument:expr)*) => {
        if let Some(gpu) = $crate::gpu::of($op, $x)? {
            return $crate::gpu::$($function)::+(&*gpu $(, $argument)*);
        }
    };
}
pub(crate) use on_gpu;

/// Fails unless a tensor is on the CPU.
pub(crate) fn expect_cpu(op: &'static str, x: &Tensor) -> Result<(), OpError> {
    if x.device().is_cpu() {
        return Ok(());
    }
    Err(OpError::Device { op, got: format!("{:?}", x.device().location()) })
}
