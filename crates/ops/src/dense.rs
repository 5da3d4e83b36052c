//! Borrowing the numbers of a tensor in the order a kernel wants, and making tensors from numbers.
//!
//! Images and activations are `[N, C, H, W]` with channels last in memory (PyTorch's `channels_last`);
//! a tensor in another order is copied into this one. See docs/adr/002.

use std::mem::MaybeUninit;

use candle_core::{DType, Device, Storage, Tensor, WithDType};

use crate::error::{InOp, OpError};
use crate::simd::Float;

/// A tensor whose numbers are stored in row-major order.
#[derive(Debug)]
pub(crate) struct Dense(Tensor);

impl Dense {
    /// The tensor in its own order, copied if it is strided.
    pub(crate) fn rows(op: &'static str, x: &Tensor) -> Result<Self, OpError> {
        Ok(Self(x.contiguous().in_op(op)?))
    }

    /// `[N, C, H, W]` with channels last; no copy if it is so already.
    pub(crate) fn channels_last(op: &'static str, x: &Tensor) -> Result<Self, OpError> {
        Ok(Self(x.permute((0, 2, 3, 1)).and_then(|x| x.contiguous()).in_op(op)?))
    }

    /// The tensor itself.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Lends the numbers.
    pub(crate) fn with<T: WithDType, R>(
        &self,
        op: &'static str,
        work: impl FnOnce(&[T]) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let (storage, layout) = self.0.storage_and_layout();
        let Storage::Cpu(cpu) = &*storage else {
            let only = candle_core::Error::Msg("this op runs on the CPU only".into());
            return Err(only).in_op(op);
        };
        let all = cpu.as_slice::<T>().in_op(op)?;
        let start = layout.start_offset();
        work(&all[start..start + layout.shape().elem_count()])
    }
}

/// Lends the numbers of several dense tensors at once: `lend!(op, T, [x, y] => expression)`.
macro_rules! lend {
    (@ $op:expr, $t:ty, [] => $body:expr) => { Ok::<_, $crate::OpError>($body) };
    (@ $op:expr, $t:ty, [$first:ident $(, $rest:ident)*] => $body:expr) => {
        $first.with::<$t, _>($op, |$first| lend!(@ $op, $t, [$($rest),*] => $body))
    };
    ($op:expr, $t:ty, [$($name:ident),+] => $body:expr) => {
        lend!(@ $op, $t, [$($name),+] => $body)?
    };
}
pub(crate) use lend;

/// Memory of a result that a kernel is about to write in full; zeroing it first would cost a pass.
pub(crate) struct Unwritten<T>(Vec<MaybeUninit<T>>);

impl<T> Unwritten<T> {
    pub(crate) fn new(len: usize) -> Self {
        let mut numbers = Vec::with_capacity(len);
        // SAFETY: memory that is not initialized is what the element type stands for.
        unsafe { numbers.set_len(len) };
        Self(numbers)
    }

    /// The elements, to be written with `MaybeUninit::write`.
    pub(crate) fn elements(&mut self) -> &mut [MaybeUninit<T>] {
        &mut self.0
    }

    /// Where the elements start, for kernels that do not need all of them.
    pub(crate) fn pointer(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    /// The numbers.
    ///
    /// # Safety
    /// Every element was written.
    pub(crate) unsafe fn written(self) -> Vec<T> {
        let mut numbers = std::mem::ManuallyDrop::new(self.0);
        let (pointer, len, capacity) = (numbers.as_mut_ptr(), numbers.len(), numbers.capacity());
        // SAFETY: the parts of a vector whose elements have the same layout, and are numbers by now.
        unsafe { Vec::from_raw_parts(pointer.cast::<T>(), len, capacity) }
    }
}

/// A tensor of the given shape from row-major numbers.
pub(crate) fn tensor<T: Float>(
    op: &'static str,
    numbers: Vec<T>,
    shape: impl Into<candle_core::Shape>,
) -> Result<Tensor, OpError> {
    Tensor::from_vec(numbers, shape.into(), &Device::Cpu).in_op(op)
}

/// `[N, C, H, W]` from numbers with channels last.
pub(crate) fn channels_last<T: Float>(
    op: &'static str,
    numbers: Vec<T>,
    [n, c, h, w]: [usize; 4],
) -> Result<Tensor, OpError> {
    tensor(op, numbers, (n, h, w, c))?.permute((0, 3, 1, 2)).in_op(op)
}

/// The four dimensions of `[N, C, H, W]`.
pub(crate) fn dims4(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
) -> Result<[usize; 4], OpError> {
    four(op, name, x.dims())
}

/// A shape as four dimensions `[N, C, H, W]`.
pub(crate) fn four(
    op: &'static str,
    name: &'static str,
    dims: &[usize],
) -> Result<[usize; 4], OpError> {
    match *dims {
        [n, c, h, w] => Ok([n, c, h, w]),
        _ => Err(shape(op, name, "[N, C, H, W]", dims)),
    }
}

/// The two dimensions of a matrix.
pub(crate) fn dims2(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
) -> Result<[usize; 2], OpError> {
    match *x.dims() {
        [n, c] => Ok([n, c]),
        _ => Err(shape(op, name, "two dimensions", x.dims())),
    }
}

/// The error about a shape.
pub(crate) fn shape(
    op: &'static str,
    tensor: &'static str,
    expected: impl Into<String>,
    got: &[usize],
) -> OpError {
    OpError::Shape { op, tensor, expected: expected.into(), got: got.to_vec() }
}

/// Fails unless a tensor has the expected shape.
pub(crate) fn expect_shape(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
    expected: &[usize],
) -> Result<(), OpError> {
    if x.dims() == expected {
        return Ok(());
    }
    Err(shape(op, name, format!("{expected:?}"), x.dims()))
}

/// Fails unless a tensor is of these integers.
pub(crate) fn expect_integers(
    op: &'static str,
    tensor: &'static str,
    x: &Tensor,
    dtype: DType,
) -> Result<(), OpError> {
    if x.dtype() == dtype {
        return Ok(());
    }
    Err(OpError::Integer { op, tensor, expected: dtype.as_str(), got: x.dtype() })
}

/// Calls a generic function with the float type of a tensor: `by_dtype!(op, x, function(args))`.
macro_rules! by_dtype {
    ($op:expr, $x:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $x.dtype() {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F64 => $function::<f64>($($argument),*),
            got => Err($crate::OpError::DType { op: $op, tensor: stringify!($x), got }),
        }
    };
}
pub(crate) use by_dtype;
