//! Memory of CPU tensors as a GPU that is none, or one that is elsewhere, needs it: by address.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};

use crate::error::{InOp, OpError};

/// Elements around each result that nobody may write to.
const MARGIN: usize = 64;
/// The byte that unwritten memory is filled with: NaN as f32 and as bf16.
const UNWRITTEN: u8 = 0xff;

/// Memory of the host that nothing was written to, with margins.
pub(crate) fn alloc(op: &'static str, dims: &[usize], dtype: DType) -> Result<Tensor, OpError> {
    let len: usize = dims.iter().product();
    let bytes = vec![UNWRITTEN; (len + 2 * MARGIN) * dtype.size_in_bytes()];
    let all = Tensor::from_raw_buffer(&bytes, dtype, &[len + 2 * MARGIN], &Device::Cpu);
    all.and_then(|all| all.narrow(0, MARGIN, len)?.reshape(dims)).in_op(op)
}

/// Where the numbers of a contiguous tensor of the CPU are.
#[derive(Debug)]
pub(crate) struct Memory {
    start: *mut u8,
    len: usize,
    /// Bytes of margin on both sides, if it was allocated here.
    margin: usize,
}

impl Memory {
    pub(crate) fn of(op: &'static str, x: &Tensor) -> Result<Self, OpError> {
        if !x.is_contiguous() {
            return Err(OpError::Strided { op, tensor: "argument" });
        }
        let finder = Finder(Cell::new((std::ptr::null_mut(), 0)));
        x.inplace_op1(&finder).in_op(op)?;
        let (all, elements) = finder.0.get();
        let size = x.dtype().size_in_bytes();
        let offset = x.layout().start_offset();
        let is_own = offset == MARGIN && elements == x.elem_count() + 2 * MARGIN;
        Ok(Self {
            start: all.wrapping_add(offset * size),
            len: x.elem_count() * size,
            margin: if is_own { MARGIN * size } else { 0 },
        })
    }

    /// Whether it is the same memory.
    #[cfg(feature = "device-tests")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.start, self.len) == (other.start, other.len)
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.expose_provenance() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory of a tensor that outlives this, and no kernel is running.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub(crate) fn restore(&self, bytes: &[u8]) {
        // SAFETY: as in `bytes`; the length is the one of an earlier copy.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, self.len) };
    }

    pub(crate) fn margins_are_whole(&self) -> bool {
        let from = self.start.wrapping_sub(self.margin);
        // SAFETY: the margins belong to the same allocation.
        let all = unsafe { std::slice::from_raw_parts(from, self.len + 2 * self.margin) };
        let (front, rest) = all.split_at(self.margin);
        front.iter().chain(&rest[self.len..]).all(|byte| *byte == UNWRITTEN)
    }
}

/// Learns where a tensor's storage begins and how many elements it has.
struct Finder(Cell<(*mut u8, usize)>);

impl InplaceOp1 for Finder {
    fn name(&self) -> &'static str {
        "emulator"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        fn of<T>(numbers: &mut Vec<T>) -> (*mut u8, usize) {
            (numbers.as_mut_ptr().cast(), numbers.len())
        }
        self.0.set(match storage {
            CpuStorage::U8(numbers) => of(numbers),
            CpuStorage::U32(numbers) => of(numbers),
            CpuStorage::I64(numbers) => of(numbers),
            CpuStorage::F32(numbers) => of(numbers),
            CpuStorage::BF16(numbers) => of(numbers),
            _ => candle_core::bail!("no kernel takes this type"),
        });
        Ok(())
    }
}
