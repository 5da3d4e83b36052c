//! The threads of a pipeline: how one starts, how it ends, and how all are joined.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::error::PipelineError;
use crate::lanes::{Halt, Outlet};
use crate::meter::{Meter, StageReport};

/// Every thread of a pipeline with its meters and the flag that asks them to stop.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    threads: Vec<(String, JoinHandle<Result<(), PipelineError>>)>,
    meters: Vec<Arc<Meter>>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    /// Adds a stage to the reports.
    pub(crate) fn meter(&mut self, stage: &str) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(stage));
        self.meters.push(Arc::clone(&meter));
        meter
    }

    pub(crate) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Starts a thread that runs `body` and ends by telling the next stage how it went: silently at the
    /// end of the data, with the failure in the slot of the next item otherwise.
    pub(crate) fn spawn<T: Send + 'static>(
        &mut self,
        name: String,
        mut outlet: Outlet<T>,
        body: impl FnOnce(&mut Outlet<T>) -> Result<(), Halt> + Send + 'static,
    ) -> Result<(), PipelineError> {
        let stage = name.clone();
        // The outlet is used again after a panic: its round robin moves only after a slot was sent.
        let run = move || {
            let _span = tracing::debug_span!("stage", name = stage).entered();
            tracing::debug!("started");
            let fault = match catch_unwind(AssertUnwindSafe(|| body(&mut outlet))) {
                Ok(Ok(())) => {
                    tracing::debug!("reached the end of its data");
                    return Ok(());
                }
                Ok(Err(Halt::Cut)) => {
                    tracing::debug!("ended early: nobody wants its items");
                    return Err(PipelineError::closed(&stage));
                }
                Ok(Err(Halt::Fault(fault))) => fault,
                Err(payload) => PipelineError::panicked(&stage, &*payload),
            };
            tracing::debug!("ended by a fault: {fault}");
            match outlet.fail(fault.clone()) {
                Ok(()) | Err(Halt::Cut) => Err(fault),
                Err(Halt::Fault(other)) => Err(other),
            }
        };
        let thread = Builder::new()
            .name(name.clone())
            .spawn(run)
            .map_err(|source| PipelineError::spawn(&name, source))?;
        self.threads.push((name, thread));
        Ok(())
    }

    /// Asks every thread to stop before its next item.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for every thread; the first that did not reach the end of its data is the error.
    pub(crate) fn join(&mut self) -> Result<(), PipelineError> {
        let mut verdict = Ok(());
        for (name, thread) in self.threads.drain(..) {
            let ended = thread
                .join()
                .unwrap_or_else(|payload| Err(PipelineError::panicked(&name, &*payload)));
            verdict = verdict.and(ended);
        }
        verdict
    }

    pub(crate) fn reports(&self) -> Vec<StageReport> {
        self.meters.iter().map(|meter| meter.report()).collect()
    }
}

/// A pipeline that is given up half built, by an early return for instance, still lets its threads go.
impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}
