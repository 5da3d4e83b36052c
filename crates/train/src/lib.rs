//! The training loop, its checkpoints and its evaluations.
//!
//! The principal function is [`pretrain()`], which `cargo xtask pretrain` runs: it takes a [`PretrainPlan`] and
//! [`Components`], reports [`Event`]s and returns an [`Outcome`]. Your own source of images, augmentation or
//! encoder goes into the [`Components`].
#![forbid(unsafe_code)]

mod components;
mod difference;
mod error;
mod evaluation;
mod event;
mod features;
mod identity;
mod measure;
mod metrics;
mod plan;
mod pretrain;
mod run_folder;
mod run_state;
mod snapshot;
mod sources;
mod start;
mod summary;
mod tally;
mod trained;
mod verdict;

pub use components::{Components, build_encoder, training_recipe};
pub use difference::{Acceptance, Difference};
pub use error::{DataFault, ErrorKind, TrainError};
pub use evaluation::finished;
pub use event::{DataComparison, Event, LogLine, format_pace};
pub use features::{Encoded, encode, placement_of};
pub use identity::RunId;
pub use measure::{BankSize, Labeled, evaluation_recipe, linear_config};
// What a plan is made of, and what events and errors hold.
pub use moco_feed::{FeedError, FinishOn, InputPlan, Pairing, WorkerPlan};
pub use moco_ingest::{BadSample, Layout, OnBadSample};
pub use plan::{
    Cadence, EvaluationActivations, EvaluationPlan, HealthPlan, KnnPlan, Length, LinearPlan,
    PretrainPlan,
};
pub use pretrain::{Control, Outcome, pretrain};
pub use run_folder::{FoundId, Newest, Rejected, Resume, RunFolder};
pub use run_state::FORMAT;
pub use snapshot::SavedRun;
pub use sources::{
    DataAccess, DataPlan, OpenStore, Preparing, ShardCheck, ShardsPlan, Sources, no_store,
    open_sources,
};
pub use start::{ChangedData, Continued, Start};
pub use summary::{
    Extension, Extractor, Failed, ImageCounts, LeftOut, Measure, Parent, Settings, Summary, Trio,
};
pub use trained::TrainedEncoder;
