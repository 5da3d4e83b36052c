//! The consumer's end of a pipeline.

use std::sync::Arc;
use std::time::Instant;

use crate::crew::Crew;
use crate::error::PipelineError;
use crate::lanes::Lanes;
use crate::meter::{Meter, Spent, StageReport};

/// Receives the items in order and owns every thread; dropping it stops and joins them.
#[derive(Debug)]
pub struct Feed<T> {
    lanes: Lanes<T>,
    crew: Crew,
    meter: Arc<Meter>,
    /// When the consumer got its last item: until it asks again it is busy.
    handed_out: Option<Instant>,
    ended: Option<Result<(), PipelineError>>,
}

impl<T> Feed<T> {
    pub(crate) fn new(lanes: Lanes<T>, crew: Crew, meter: Arc<Meter>) -> Self {
        Self { lanes, crew, meter, handed_out: None, ended: None }
    }

    /// The next item, or `None` once every thread has been joined and had reached the end of its data.
    ///
    /// # Errors
    /// The first failure in the order of the items, after all items before it; it stays the answer of
    /// every later call.
    pub fn recv(&mut self) -> Result<Option<T>, PipelineError> {
        if let Some(ended) = &self.ended {
            return ended.clone().map(|()| None);
        }
        if let Some(since) = self.handed_out.take() {
            self.meter.add(Spent::Busy, since.elapsed());
        }
        let ended = match self.lanes.take(&self.meter) {
            Ok(Some(item)) => {
                self.meter.count_item();
                self.handed_out = Some(Instant::now());
                return Ok(Some(item));
            }
            Ok(None) => {
                self.lanes.close();
                self.crew.join()
            }
            Err(fault) => {
                self.dismiss();
                Err(fault)
            }
        };
        self.ended = Some(ended.clone());
        ended.map(|()| None)
    }

    /// What each stage has done so far, in the order of construction; the last one, `consumer`, is the
    /// caller: busy between two calls of [`Feed::recv`], waiting within.
    #[must_use]
    pub fn meters(&self) -> Vec<StageReport> {
        self.crew.reports()
    }

    /// Stops and joins the threads.
    fn dismiss(&mut self) {
        self.crew.stop();
        self.lanes.close();
        // They were asked to stop early; their errors say that they did, or come later in the order.
        drop(self.crew.join());
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.dismiss();
    }
}
