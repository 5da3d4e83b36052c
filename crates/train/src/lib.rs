//! The training loop, its checkpoints and its evaluations.
//!
//! [`pretrain()`] is what `cargo xtask pretrain` runs. Its [`Parts`] are the places where somebody's own
//! source of images, augmentation or encoder goes in.
#![forbid(unsafe_code)]

mod error;
mod event;
mod features;
mod measure;
mod metrics;
mod plan;
mod pretrain;
mod run_folder;
mod snapshot;
mod sources;
mod summary;
mod tally;

pub use error::{ErrorKind, TrainError};
pub use event::{Event, LogLine};
pub use features::{encode, placement_of};
pub use measure::{Labeled, Measured, evaluation_recipe, linear_config};
// What a plan is made of, and what events and errors hold.
pub use moco_feed::{BadSample, FeedError, FinishOn, InputPlan, OnBadSample, Pairing, WorkerPlan};
pub use plan::{
    Cadence, DataPlan, EvaluationActivations, EvaluationPlan, HealthPlan, KnnPlan, Length,
    LinearPlan, PretrainPlan, ShardCheck, ShardsPlan,
};
pub use pretrain::{Control, Outcome, Parts, pretrain};
pub use run_folder::{Newest, Resume, RunFolder};
pub use snapshot::load_state;
pub use sources::{OpenStore, Preparing, Sources, open_sources};
pub use summary::{Summary, Trio};
