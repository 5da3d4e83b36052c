//! Errors of operations.

use candle_core::DType;

/// An op was given tensors that it cannot work on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// A tensor has the wrong shape.
    #[error("{op}: `{tensor}` has shape {got:?}, expected {expected}")]
    Shape {
        /// The op.
        op: &'static str,
        /// The argument.
        tensor: &'static str,
        /// The expected value.
        expected: String,
        /// The value that was given.
        got: Vec<usize>,
    },
    /// A tensor's numbers are stored in a way that the op does not know, or two tensors differ.
    #[error(
        "{op}: `{tensor}` is {got:?}, expected f32 or f64 (on a GPU f32 or bf16), the same for all arguments"
    )]
    DType {
        /// The op.
        op: &'static str,
        /// The argument.
        tensor: &'static str,
        /// The value that was given.
        got: DType,
    },
    /// A tensor that is not of floating-point numbers has the wrong type.
    #[error("{op}: `{tensor}` is {got:?}, expected {expected}")]
    Integer {
        /// The op.
        op: &'static str,
        /// The argument.
        tensor: &'static str,
        /// The expected value.
        expected: &'static str,
        /// The value that was given.
        got: DType,
    },
    /// A number is outside its range.
    #[error("{op}: `{argument}` = {got}, expected {expected}")]
    Argument {
        /// The op.
        op: &'static str,
        /// The argument.
        argument: &'static str,
        /// The expected value.
        expected: &'static str,
        /// The value that was given.
        got: f64,
    },
    /// A tensor to be changed in place is a strided view.
    #[error("{op}: `{tensor}` is a strided view, which cannot be changed in place")]
    Strided {
        /// The op.
        op: &'static str,
        /// The argument.
        tensor: &'static str,
    },
    /// A tensor to be changed in place is also another argument.
    #[error("{op}: `{tensor}` shares its memory with another tensor of the update")]
    SharedMemory {
        /// The op.
        op: &'static str,
        /// The argument.
        tensor: &'static str,
    },
    /// A tensor is on a device that this build has no kernels for.
    #[error("{op}: no kernels for tensors on {got} in this build; CUDA needs --features cuda")]
    Device {
        /// The op.
        op: &'static str,
        /// candle's name of the device.
        got: String,
    },
    /// A tensor is on a CPU, where the op does not exist.
    #[error("{op}: only for tensors on a GPU; on a CPU, {instead} does it")]
    OnlyGpu {
        /// The op.
        op: &'static str,
        /// The function to call instead.
        instead: &'static str,
    },
    /// A kernel was launched that cannot run.
    #[error("{op}: kernel `{kernel}`: {what}")]
    Kernel {
        /// The op.
        op: &'static str,
        /// The entry in the module.
        kernel: String,
        /// The reason.
        what: String,
    },
    /// A library below an op failed.
    #[error("{op}: {library}: {what}")]
    Library {
        /// The op.
        op: &'static str,
        /// The library.
        library: &'static str,
        /// The message.
        what: String,
    },
    /// candle failed below an op.
    #[error("{op}: {source}")]
    Candle {
        /// The op.
        op: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
}

/// Names the op in which candle failed.
pub(crate) trait InOp<T> {
    fn in_op(self, op: &'static str) -> Result<T, OpError>;
}

impl<T> InOp<T> for candle_core::Result<T> {
    fn in_op(self, op: &'static str) -> Result<T, OpError> {
        self.map_err(|source| OpError::Candle { op, source })
    }
}
