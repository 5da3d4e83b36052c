//! Checkpoints that survive crashes, full disks and flipped bits: safetensors files, written atomically,
//! synced, and checksummed as a whole.
//!
//! The principal type is [`CheckpointDir`]: it saves the [`Checkpoint`]s of a run and finds the newest valid
//! one; [`newest_valid`] does so in a folder that is only read. [`write_durably`] gives any small file the same
//! protection.
//!
//! ```
//! use std::collections::BTreeMap;
//! use moco_checkpoint::CheckpointDir;
//! use safetensors::{Dtype, tensor::TensorView};
//!
//! # let folder = tempfile::tempdir()?;
//! let checkpoints = CheckpointDir::open(folder.path(), 2)?;
//! let queue = TensorView::new(Dtype::U8, vec![3], &[1, 2, 3])?;
//! checkpoints.save(40, [("queue", queue)], &BTreeMap::from([("seed".into(), "0".into())]))?;
//!
//! let newest = checkpoints.newest_valid()?.checkpoint;
//! assert_eq!(newest.global_step, 40);
//! assert_eq!(newest.tensors()?.tensor("queue")?.data(), [1, 2, 3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it deliberately lacks: any idea of what the tensors mean, a pointer file to the newest
//! checkpoint (the names sort by step), and a lock: one run folder has one writer, and whoever owns the
//! run folder sees to that.
#![forbid(unsafe_code)]

mod dir;
mod error;
#[cfg(test)]
mod faults;
mod format;
mod fs;

pub use dir::{
    CheckpointDir, Newest, is_without_saves, newest_valid, remove_leftovers, write_durably,
};
pub use error::{CheckpointError, Rejected};
pub use format::{Checkpoint, FORMAT_VERSION};
