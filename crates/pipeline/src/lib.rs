//! Stages on named threads joined by bounded channels; end, failure and cancellation distinguished.
//!
//! The principal type is [`Pipeline`], whose stages pass items through [`Lanes`] to the [`Feed`] that the
//! consumer reads. A [`Sink`] works in the other direction: it processes what it is sent on its own thread.
//!
//! Item s travels through lane s mod n and whoever reads the lanes takes them in strict round robin,
//! so the order never depends on the number of workers and no reorder buffer can grow.
//!
//! | event | what the consumer sees |
//! |---|---|
//! | end of data | `Ok(None)`, once every thread was joined and none had left early |
//! | a stage fails | the items before it in order, then [`PipelineError::Failed`] with the stage and the cause |
//! | a stage panics | the items before it in order, then [`PipelineError::Panicked`]; never a short epoch |
//! | the consumer is dropped | every thread leaves within one item's work and is joined |
//! | the consumer is slow | the source stops after lanes × (capacities + one item in each hand) items |
//!
//! A failure takes the slot of the item it replaces, so of several failures the consumer always meets
//! the first one *in the order of the items*, whatever the threads' timing.
//!
//! ```
//! use moco_pipeline::{Pipeline, PipelineError};
//!
//! let mut pipeline = Pipeline::new();
//! let numbers = pipeline.source("read", 2, 4, (0..10).map(Ok))?;
//! let squares = pipeline.map("square", numbers, 4, |_| |n: u32| Ok(n * n))?;
//! let sums = pipeline.batch("sum", squares, 5, 1, |batch: Vec<u32>| Ok(batch.iter().sum::<u32>()))?;
//! let mut feed = pipeline.feed(sums);
//! assert_eq!(feed.recv()?, Some(0 + 1 + 4 + 9 + 16));
//! assert_eq!(feed.recv()?, Some(25 + 36 + 49 + 64 + 81));
//! assert_eq!(feed.recv()?, None);
//! # Ok::<(), PipelineError>(())
//! ```
//!
//! This is the only crate of the workspace that starts threads or opens channels. It knows nothing of
//! images or tensors, and it has no unbounded channel, no thread pool and no retry.
#![forbid(unsafe_code)]

mod big_stack;
mod crew;
mod error;
mod feed;
mod lanes;
mod meter;
mod pipeline;
mod sink;

pub use big_stack::run_on_big_stack;
pub use error::{Cause, PipelineError, StageError};
pub use feed::Feed;
pub use lanes::Lanes;
pub use meter::{StageReport, bottleneck};
pub use pipeline::Pipeline;
pub use sink::Sink;
