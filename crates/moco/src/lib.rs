//! Momentum Contrast: the queue, the momentum encoder, Shuffling BN, InfoNCE and the training step.
//!
//! The principal type is [`Moco`]; [`Moco::step`] is Algorithm 1 of MoCo v1 and lives in
//! `algorithm_1.rs`, one line of code for each line of the paper. A step takes a [`Batch`] of two views
//! and a learning rate. [`EndToEnd`] is the paper's mechanism without a queue; a training loop sees both as
//! a [`Mechanism`]. [`Health`] judges its statistics, [`CapturedSteps`] replays it as a CUDA graph.
//! Data, schedules, checkpoints and logs live in higher crates.
#![forbid(unsafe_code)]

mod algorithm_1;
mod batch;
mod build;
mod config;
mod encoder_with_head;
mod end_to_end;
mod error;
mod graph;
mod health;
mod mechanism;
mod model;
mod queue;
mod shuffle;
mod state;
mod statistics;

pub use algorithm_1::StepOutput;
pub use batch::Batch;
pub use build::{Execution, build_mechanism};
pub use config::{MechanismKind, MocoConfig, QueuePrecision};
pub use encoder_with_head::{EncoderWithHead, SavedForward};
pub use end_to_end::EndToEnd;
pub use error::MocoError;
pub use graph::CapturedSteps;
pub use health::{Alarm, Health, HealthReport, chance_loss, floor_loss};
pub use mechanism::Mechanism;
pub use model::Moco;
pub use queue::Queue;
pub use shuffle::Shuffle;
pub use state::MocoState;
pub use statistics::{PendingStep, StepStatistics};
