//! Copies to a device on a stream of their own.

use std::sync::Arc;

use candle_core::cuda::cudarc::driver::result::memcpy_htod_async;
use candle_core::cuda::cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice};
use candle_core::{CudaDevice, Tensor};

use super::driver::driver;
use super::memory;
use crate::error::{InOp, OpError};
use crate::gpu::uploads;

const OP: &str = "uploading images";

/// The stream of a device's copies.
#[derive(Debug)]
pub(crate) struct Transfers {
    device: CudaDevice,
    copies: Arc<CudaStream>,
}

/// See [`uploads::Transfers::Buffer`].
#[derive(Debug)]
pub(crate) struct Buffer {
    pinned: PinnedHostSlice<u8>,
    /// As many bytes on the device.
    pub(crate) pixels: Tensor,
    copied: CudaEvent,
    computed: CudaEvent,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        for mark in [&self.copied, &self.computed] {
            mark.context().record_err(mark.synchronize());
        }
    }
}

impl Transfers {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self, OpError> {
        let context = Arc::clone(device.cuda_stream().context());
        Ok(Self { device: device.clone(), copies: context.new_stream().map_err(driver(OP))? })
    }
}

impl uploads::Transfers for Transfers {
    type Buffer = Buffer;

    fn buffer(&self, bytes: usize) -> Result<Buffer, OpError> {
        let context = self.copies.context();
        // SAFETY: all of it is written before it is read.
        let pinned = unsafe { context.alloc_pinned::<u8>(bytes) }.map_err(driver(OP))?;
        let event = || context.new_event(None).map_err(driver(OP));
        // On the copies' own stream, since the other one may be recording.
        // SAFETY: as above.
        let pixels = unsafe { self.copies.alloc::<u8>(bytes) }.map_err(driver(OP))?;
        let pixels = memory::tensor(&self.device, pixels, &[bytes]);
        Ok(Buffer { pinned, pixels, copied: event()?, computed: event()? })
    }

    fn len(&self, buffer: &Buffer) -> usize {
        buffer.pinned.len()
    }

    fn host_waits_for_copy(&self, buffer: &Buffer) -> Result<(), OpError> {
        buffer.copied.synchronize().map_err(driver(OP))
    }

    fn write(&self, buffer: &mut Buffer, bytes: &[u8]) -> Result<(), OpError> {
        buffer.pinned.as_mut_slice().map_err(driver(OP))?.copy_from_slice(bytes);
        Ok(())
    }

    fn copy_waits_for_computation(&self, buffer: &Buffer) -> Result<(), OpError> {
        self.copies.wait(&buffer.computed).map_err(driver(OP))
    }

    fn copy(&self, buffer: &Buffer) -> Result<(), OpError> {
        let to = memory::place(&self.device, &buffer.pixels).in_op(OP)?.start;
        let from = buffer.pinned.as_slice().map_err(driver(OP))?;
        self.copies.context().bind_to_thread().map_err(driver(OP))?;
        // SAFETY: both have the same number of bytes; the pinned memory is not written before the host
        // has waited for this copy, and neither is freed before.
        unsafe { memcpy_htod_async(to, from, self.copies.cu_stream()) }.map_err(driver(OP))?;
        buffer.copied.record(&self.copies).map_err(driver(OP))
    }

    fn computation_waits_for_copy(&self, buffer: &Buffer) -> Result<(), OpError> {
        self.device.cuda_stream().wait(&buffer.copied).map_err(driver(OP))
    }

    fn mark_computation(&self, buffer: &Buffer) -> Result<(), OpError> {
        buffer.computed.record(&self.device.cuda_stream()).map_err(driver(OP))
    }
}
