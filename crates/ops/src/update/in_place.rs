//! Numbers of tensors that are changed where they are.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::marker::PhantomData;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use crate::error::{InOp, OpError};
use crate::simd::Float;

/// Lends the numbers of a contiguous tensor to be changed. Meanwhile no one else reads or writes them:
/// candle holds the lock of the tensor's memory.
pub(crate) fn change<T: Float>(
    op: &'static str,
    x: &Tensor,
    work: impl FnOnce(&mut [T]) -> Result<(), OpError>,
) -> Result<(), OpError> {
    let result = Cell::new(Ok(()));
    let work = Cell::new(Some(|numbers: &mut [T]| result.set(work(numbers))));
    let once = Once { op, work, numbers: PhantomData };
    x.inplace_op1(&once).in_op(op)?;
    result.into_inner()
}

/// candle asks for something that can be called again.
struct Once<T, F> {
    op: &'static str,
    work: Cell<Option<F>>,
    numbers: PhantomData<fn(&mut [T])>,
}

impl<T: Float, F: FnOnce(&mut [T])> InplaceOp1 for Once<T, F> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let numbers: &mut dyn Any = match storage {
            CpuStorage::F32(numbers) => numbers,
            CpuStorage::F64(numbers) => numbers,
            _ => candle_core::bail!("{}: neither f32 nor f64", self.op),
        };
        let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
        if let (Some(numbers), Some(work)) = (numbers.downcast_mut::<Vec<T>>(), self.work.take()) {
            work(&mut numbers[range]);
        }
        Ok(())
    }
}

/// Fails unless a tensor is contiguous.
pub(crate) fn expect_contiguous(
    op: &'static str,
    tensor: &'static str,
    x: &Tensor,
) -> Result<(), OpError> {
    if x.is_contiguous() { Ok(()) } else { Err(OpError::Strided { op, tensor }) }
}

/// Fails unless each tensor to be changed has memory that no other tensor given here has; otherwise the order
/// of the updates would show in the result, and two locks of one memory would wait for each other.
pub(crate) fn expect_own_memory<'t>(
    op: &'static str,
    changed: impl Iterator<Item = (&'static str, &'t Tensor)>,
    read: impl Iterator<Item = &'t Tensor>,
) -> Result<(), OpError> {
    let address = |x: &Tensor| std::ptr::from_ref(&*x.storage_and_layout().0).addr();
    let mut of_read: BTreeSet<usize> = read.map(address).collect();
    for (tensor, x) in changed {
        if !of_read.insert(address(x)) {
            return Err(OpError::SharedMemory { op, tensor });
        }
    }
    Ok(())
}
