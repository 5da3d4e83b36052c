//! Momentum Contrast: the queue, the momentum encoder, Shuffling BN, InfoNCE and the order of a step.
//!
//! [`Moco::step`] is Algorithm 1 of MoCo v1, line by line. What surrounds it (data, schedules,
//! checkpoints, logs) lives in higher crates.
#![forbid(unsafe_code)]

mod branch;
mod config;
mod error;
mod health;
mod inputs;
mod queue;
mod recorded;
mod shuffle;
mod state;
mod statistics;
mod step;

pub use branch::{Branch, BranchSaved};
pub use config::{MocoConfig, QueuePrecision};
pub use error::MocoError;
pub use health::{Alarm, Health, HealthReport, Phase, Vitals, chance_loss, floor_loss};
pub use queue::Queue;
pub use recorded::RecordedSteps;
pub use shuffle::Shuffle;
pub use state::MocoState;
pub use statistics::{PendingStep, StepStatistics};
pub use step::{Moco, StepOutput, StepViews};
