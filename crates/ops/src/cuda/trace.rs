//! Marks around operations, to measure how long each took.

use std::sync::Arc;

use candle_core::cuda::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda::cudarc::driver::{CudaEvent, CudaStream};

use super::driver::driver;
use crate::error::OpError;
use crate::gpu::cost::Work;
use crate::trace::Traced;

const OP: &str = "trace";

/// A trace under way.
pub(super) struct Trace {
    stream: Arc<CudaStream>,
    marks: Vec<(Work, CudaEvent, CudaEvent)>,
}

impl Trace {
    pub(super) fn new(stream: Arc<CudaStream>) -> Self {
        Self { stream, marks: Vec::new() }
    }

    /// A mark after all that was queued.
    pub(super) fn mark(&self) -> Result<CudaEvent, OpError> {
        self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(driver(OP))
    }

    /// `work` was queued after a mark.
    pub(super) fn queued(&mut self, work: Work, before: CudaEvent) -> Result<(), OpError> {
        let after = self.mark()?;
        self.marks.push((work, before, after));
        Ok(())
    }

    /// Waits for the device.
    pub(super) fn end(self) -> Result<Vec<Traced>, OpError> {
        let read = |(work, before, after): (Work, CudaEvent, CudaEvent)| {
            let milliseconds = before.elapsed_ms(&after).map_err(driver(OP))?;
            let Work { op, kernel, shape, bytes, flops } = work;
            Ok(Traced { op, kernel, shape, milliseconds, bytes, flops })
        };
        self.marks.into_iter().map(read).collect()
    }
}
