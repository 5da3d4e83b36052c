//! What a GPU offers ([`Gpu`]): memory, kernels and convolutions. Each operation's GPU half is written once
//! against it and is next to its CPU half; which GPU it runs on is known to `backend` only. A CUDA device
//! offers it to tensors that live there; the emulator, for tests, to tensors of the CPU, so that the launches
//! and the kernels' arithmetic are proven on any machine.
//!
//! Activations are f32 or bf16 `[N, C, H, W]`, channels last in memory; parameters, statistics, losses
//! and gradients of parameters are f32.

#[cfg(any(test, feature = "cuda"))]
mod choices;
pub(crate) mod convolution;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cost;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod graph;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod plans;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod ring;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod sizes;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod uploads;

use candle_core::{DType, Tensor};

use crate::dense::Dense;
use crate::error::OpError;

pub(crate) use self::convolution::Convolution;

/// Threads of a block where nothing speaks for another number.
pub(crate) const THREADS: u32 = 256;
/// Blocks that fill a multiprocessor's 2048 threads.
const BLOCKS_A_MULTIPROCESSOR: u32 = 8;

/// The operations of a GPU.
pub(crate) trait Gpu {
    /// Memory for a result, contiguous; what is in it is undefined.
    fn alloc(&self, op: &'static str, dims: &[usize], dtype: DType) -> Result<Tensor, OpError>;

    /// Queues a kernel after all that was queued before.
    fn launch(
        &self,
        op: &'static str,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_>],
    ) -> Result<(), OpError>;

    /// A convolution or one of its gradients; see [`Convolution`] for what `a` and `b` are.
    fn convolve(
        &self,
        op: &'static str,
        convolution: &Convolution,
        a: &Tensor,
        b: &Tensor,
    ) -> Result<Tensor, OpError>;

    /// The product of two f32 matrices, each contiguous or the transpose of one that is.
    fn multiply(&self, op: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError>;

    /// Where the first element of a contiguous tensor is, for a table of tensors; see [`Arg::Changed`].
    fn address(&self, op: &'static str, x: &Tensor) -> Result<u64, OpError>;

    /// Queues the replacement of a contiguous tensor's bytes by these; the host waits for nothing.
    fn write(&self, op: &'static str, to: &Tensor, bytes: &[u8]) -> Result<(), OpError>;

    /// Queues the replacement of a contiguous tensor by another one of its size.
    fn copy(&self, op: &'static str, to: &Tensor, from: &Tensor) -> Result<(), OpError>;

    /// Starts recording: subsequent calls are captured, not executed; see [`crate::Recording`].
    fn begin_recording(&self, op: &'static str) -> Result<(), OpError>;

    /// Ends recording and returns the captured work.
    fn end_recording(&self, op: &'static str) -> Result<Box<dyn Recorded>, OpError>;

    /// Multiprocessors of the device; more blocks than they hold at a time bring nothing to kernels that
    /// walk over their data.
    fn multiprocessors(&self) -> u32;
}

/// Work that was recorded.
pub(crate) trait Recorded {
    /// Queues all of it.
    fn repeat(&self, op: &'static str) -> Result<(), OpError>;
}

/// A kernel by its name in `kernels/entries.inc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kernel {
    name: &'static str,
    /// How its numbers are stored, for kernels that exist for each way.
    dtype: Option<&'static str>,
}

impl Kernel {
    /// One that exists once.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, dtype: None }
    }

    /// The one for numbers stored as in `x`.
    pub(crate) fn typed(name: &'static str, x: &Tensor) -> Self {
        Self { name, dtype: Some(x.dtype().as_str()) }
    }

    /// The entry's name in the compiled module.
    pub(crate) fn entry(self) -> String {
        match self.dtype {
            None => self.name.to_owned(),
            Some(dtype) => format!("{}_{dtype}", self.name),
        }
    }
}

/// The blocks of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Blocks along x and y.
    pub(crate) blocks: [u32; 2],
    /// Threads of a block; a multiple of a warp's 32 for kernels that shuffle.
    pub(crate) threads: u32,
    /// Dynamic shared memory.
    pub(crate) shared_bytes: u32,
}

impl Grid {
    /// Enough threads for `n` elements, or as many as the device holds at a time if that is fewer.
    pub(crate) fn of_elements(gpu: &dyn Gpu, n: usize) -> Self {
        let all = n.div_ceil(THREADS as usize).max(1);
        let most = (gpu.multiprocessors() * BLOCKS_A_MULTIPROCESSOR) as usize;
        let blocks = u32::try_from(all.min(most)).unwrap_or(u32::MAX);
        Self { blocks: [blocks, 1], threads: THREADS, shared_bytes: 0 }
    }

    /// A warp for each of `n` rows, or as many as the device holds at a time.
    pub(crate) fn of_rows(gpu: &dyn Gpu, n: usize) -> Self {
        Self::of_elements(gpu, n * 32)
    }
}

/// An argument of a kernel, in the order of its parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    /// Read: contiguous.
    In(&'a Tensor),
    /// Written, or changed in place: contiguous.
    Out(&'a Tensor),
    /// No parameter: a tensor that the kernel changes through an address in a table.
    Changed(&'a Tensor),
    U32(u32),
    U64(u64),
    F32(f32),
}

/// A size as a kernel takes it.
pub(crate) fn u32_of(op: &'static str, size: usize) -> Result<Arg<'static>, OpError> {
    narrow(op, size).map(Arg::U32)
}

/// A size, or a number of blocks, in 32 bits.
pub(crate) fn narrow(op: &'static str, size: usize) -> Result<u32, OpError> {
    u32::try_from(size).map_err(|_too_large| OpError::Argument {
        op,
        argument: "size",
        expected: "below 2^32",
        #[expect(clippy::cast_precision_loss, reason = "for a message")]
        got: size as f64,
    })
}

/// A number of elements as a kernel takes it.
pub(crate) fn elements(x: &Tensor) -> Arg<'static> {
    Arg::U64(x.elem_count() as u64)
}

/// How many accesses of 16 bytes a tensor is made of.
pub(crate) fn vectors(x: &Tensor) -> usize {
    (x.elem_count() * x.dtype().size_in_bytes()).div_ceil(16)
}

/// Numbers as i64 in a GPU's memory.
pub(crate) fn upload_table(
    gpu: &dyn Gpu,
    op: &'static str,
    numbers: &[u64],
) -> Result<Tensor, OpError> {
    let table = gpu.alloc(op, &[numbers.len()], DType::I64)?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    gpu.write(op, &table, &bytes)?;
    Ok(table)
}

/// A contiguous f32 or bf16 tensor; anything else has no kernels.
pub(crate) fn rows(op: &'static str, name: &'static str, x: &Tensor) -> Result<Dense, OpError> {
    expect_kernels(op, name, x)?;
    Dense::rows(op, x)
}

/// An f32 or bf16 tensor with channels last.
pub(crate) fn channels_last(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
) -> Result<Dense, OpError> {
    expect_kernels(op, name, x)?;
    Dense::channels_last(op, x)
}

/// Fails unless there are kernels for the type of a tensor.
pub(crate) fn expect_kernels(
    op: &'static str,
    tensor: &'static str,
    x: &Tensor,
) -> Result<(), OpError> {
    match x.dtype() {
        DType::F32 | DType::BF16 => Ok(()),
        got => Err(OpError::DType { op, tensor, got }),
    }
}

/// Fails unless a tensor has this type.
pub(crate) fn expect_dtype(
    op: &'static str,
    tensor: &'static str,
    x: &Tensor,
    dtype: DType,
) -> Result<(), OpError> {
    if x.dtype() == dtype {
        return Ok(());
    }
    Err(OpError::DType { op, tensor, got: x.dtype() })
}
