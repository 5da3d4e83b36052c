//! Wires the stages and holds the training loop.
//!
//! [`pretrain()`] is what `cargo xtask pretrain` runs. Its [`Parts`] are the places where somebody's own
//! source of images, augmentation or encoder goes in.
#![forbid(unsafe_code)]

mod bad_sample;
mod bad_samples;
mod error;
mod event;
mod features;
mod feeds;
mod finish;
mod measure;
mod metrics;
mod plan;
mod pretrain;
mod run_folder;
mod snapshot;
mod sources;
mod summary;
mod tally;

pub use bad_sample::BadSample;
pub use bad_samples::Substitutes;
pub use error::{ErrorKind, TrainError};
pub use event::{Event, LogLine};
pub use features::encode;
pub use feeds::{DeviceBatch, DeviceFeed, Target, decode, train_feed, train_sampler, view_streams};
pub use finish::image_steps;
pub use measure::{Labeled, Measured, evaluation_recipe, linear_config};
pub use plan::{
    Cadence, DataPlan, EvaluationActivations, EvaluationPlan, FinishOn, HealthPlan, InputPlan,
    KnnPlan, Length, LinearPlan, OnBadSample, Pairing, PretrainPlan, ShardCheck, ShardsPlan,
    WorkerPlan,
};
pub use pretrain::{Control, Outcome, Parts, pretrain};
pub use run_folder::{Newest, Resume, RunFolder};
pub use snapshot::{FORMAT, load_state};
pub use sources::{OpenStore, Preparing, Sources, open_sources};
pub use summary::{Summary, Trio};
