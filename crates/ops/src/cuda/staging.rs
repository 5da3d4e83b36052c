//! Small tables from the host to the device: through pinned memory, so that the host never waits for what
//! the device has yet to do. From pageable memory the driver may.

use std::sync::Arc;

use candle_core::cuda::cudarc::driver::result::memcpy_htod_async;
use candle_core::cuda::cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice};

use super::driver::driver;
use crate::error::OpError;
use crate::gpu::ring::Ring;

/// More than the tables of many steps take, so that the host is not held up by the device.
const BYTES: usize = 4 << 20;

/// Pinned memory that tables pass through.
pub(super) struct Staging {
    pinned: Pinned,
    ring: Ring<CudaEvent>,
}

impl Staging {
    pub(super) fn new(op: &'static str, stream: &Arc<CudaStream>) -> Result<Self, OpError> {
        Ok(Self { pinned: Pinned::new(op, stream, BYTES)?, ring: Ring::new(BYTES) })
    }

    /// Queues a copy of `bytes` to an address of the device.
    pub(super) fn copy(&mut self, op: &'static str, to: u64, bytes: &[u8]) -> Result<(), OpError> {
        let mut to = to;
        for chunk in bytes.chunks(BYTES) {
            // A chunk is never larger than the ring.
            let Some((piece, busy)) = self.ring.claim(chunk.len()) else { continue };
            if let Some(busy) = busy {
                busy.synchronize().map_err(driver(op))?;
            }
            self.pinned.copy(op, piece.start, chunk, to)?;
            let stream = &self.pinned.stream;
            self.ring.mark(piece, stream.record_event(None).map_err(driver(op))?);
            to += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Pinned memory by its address: asking for it through its owner would wait for an event, which is not
/// allowed while a stream records.
pub(super) struct Pinned {
    stream: Arc<CudaStream>,
    start: *mut u8,
    len: usize,
    _owner: PinnedHostSlice<u8>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Copies out of the memory may still be under way.
        self.stream.context().record_err(self.stream.synchronize());
    }
}

impl Pinned {
    pub(super) fn new(
        op: &'static str,
        stream: &Arc<CudaStream>,
        bytes: usize,
    ) -> Result<Self, OpError> {
        // SAFETY: what is read of it was written before.
        let owner = unsafe { stream.context().alloc_pinned::<u8>(bytes) };
        let mut owner = owner.map_err(driver(op))?;
        let start = owner.as_mut_ptr().map_err(driver(op))?;
        Ok(Self { stream: Arc::clone(stream), start, len: bytes, _owner: owner })
    }

    /// Writes bytes at an offset, of which the caller knows that no copy reads there any more, and queues
    /// their copy to the device.
    pub(super) fn copy(
        &self,
        op: &'static str,
        offset: usize,
        bytes: &[u8],
        to: u64,
    ) -> Result<(), OpError> {
        if offset + bytes.len() > self.len {
            let what = format!("a recording has no room for tables beyond {} bytes", self.len);
            return Err(OpError::Library { op, library: "the CUDA driver", what });
        }
        // SAFETY: the piece lies within the memory; nothing reads it until the copy that is queued here.
        let piece = unsafe {
            let piece = self.start.add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), piece, bytes.len());
            std::slice::from_raw_parts(piece, bytes.len())
        };
        self.stream.context().bind_to_thread().map_err(driver(op))?;
        // SAFETY: the device's tensor has as many bytes, and the pinned memory is freed after the copy.
        unsafe { memcpy_htod_async(to, piece, self.stream.cu_stream()) }.map_err(driver(op))
    }
}
