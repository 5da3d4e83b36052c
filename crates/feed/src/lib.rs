//! The data path from a source of images to batches on the device.
//!
//! The principal type is [`ViewStages`]: its methods start the stages for training and for evaluation and
//! give [`DeviceBatches`]. On its way an image is an [`EncodedSample`](moco_ingest::EncodedSample), then an
//! `AugmentedSample` of one or two views, a part of a `U8Batch`, of an `UploadingBatch`, and at last of a
//! [`DeviceBatch`]. What this crate deliberately does not know: encoders, the method and its checkpoints.
#![forbid(unsafe_code)]

mod bad_samples;
mod batch;
mod error;
mod finish;
mod order;
mod plan;
mod selection;
mod stages;
mod views;

pub use bad_samples::Substitutes;
pub use batch::{DeviceBatch, DeviceBatches};
pub use error::{FeedError, with_causes};
pub use finish::image_steps;
pub use order::TrainingOrder;
pub use plan::{FinishOn, InputPlan, Pairing, Placement, WorkerPlan};
pub use selection::Selection;
pub use stages::ViewStages;
pub use views::{decode, view_streams};
