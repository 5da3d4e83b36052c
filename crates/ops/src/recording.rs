//! Work that is queued as a whole again and again.

use candle_core::Device;

use crate::backend;
use crate::error::OpError;
use crate::gpu::Recorded;

const OP: &str = "recording";

/// GPU work that was captured once and is replayed by one call (a CUDA graph), so that the host
/// spends microseconds on it where it would spend milliseconds.
///
/// Replays read and write the memory of the tensors that the work was recorded with, which it keeps.
pub struct Recording(Box<dyn Recorded>);

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recording")
    }
}

impl Recording {
    /// Records `work` on a device; nothing is computed. All its operations are this crate's, have been
    /// computed before in these shapes, and read nothing back. Tensors that it makes do not outlive it:
    /// results are copied to others by [`copy_`](crate::copy_).
    ///
    /// # Errors
    /// If `work` fails, the device cannot record, or a tensor outlives the work.
    pub fn new<E: From<OpError>>(
        device: &Device,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        let gpu = backend::expect(OP, device)?;
        gpu.begin_recording(OP)?;
        let done = work();
        // Also after a failure, or the device would record forever.
        let recorded = gpu.end_recording(OP);
        done?;
        Ok(Self(recorded?))
    }

    /// Queues the work once more.
    ///
    /// # Errors
    /// If the device fails.
    pub fn repeat(&self) -> Result<(), OpError> {
        self.0.repeat(OP)
    }
}
