//! Errors of checkpoints, each with a hint for the user.

use std::io;
use std::path::PathBuf;

use safetensors::SafeTensorError;

/// A checkpoint could not be written, read or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No space left, also after the oldest checkpoint was deleted where that was safe.
    #[error("no space for {}: {needed} bytes needed; {hint}", path.display())]
    DiskFull {
        /// The checkpoint that was not written; earlier ones are intact.
        path: PathBuf,
        /// Size of the file.
        needed: u64,
        /// A hint for the user.
        hint: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder without one usable checkpoint.
    #[error("no usable checkpoint in {}{}", folder.display(), listed(rejected))]
    NoneFound {
        /// The folder that was searched.
        folder: PathBuf,
        /// Checkpoints that are there but cannot be used, newest first.
        rejected: Vec<Rejected>,
    },
    /// The bytes are not those that were written.
    #[error("{} is damaged: expected blake3 {expected}, got {got}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The checksum in the file.
        expected: String,
        /// The checksum of the file.
        got: String,
    },
    /// Another kind of file, or one cut within its first bytes.
    #[error("{} is not a checkpoint of this program: expected {expected}", path.display())]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// The expected beginning.
        expected: &'static str,
    },
    /// Written by a later release.
    #[error(
        "{} has format version {found}, this program reads up to {supported}; use the release that wrote it",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// A metadata entry that each checkpoint has is missing or malformed.
    #[error("{}: expected a whole number in metadata `{key}`, got {got:?}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
        /// Its value.
        got: Option<String>,
    },
    /// The header contradicts itself or the data.
    #[error("the header of {} is invalid", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: SafeTensorError,
    },
    /// A checkpoint under the name of another step.
    #[error("{} holds step {inside}; if it belongs here, rename it to {name}", path.display())]
    OtherStep {
        /// The file.
        path: PathBuf,
        /// The step inside.
        inside: u64,
        /// The name of a file of that step.
        name: String,
    },
    /// The tensors or the metadata to be saved cannot be put into one file.
    #[error("cannot save `{name}` in a checkpoint: {reason}")]
    Unsavable {
        /// A tensor's name or a metadata key.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// A checkpoint that cannot be used.
#[derive(Debug)]
pub struct Rejected {
    /// Its file, left in place.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub reason: CheckpointError,
}

fn listed(rejected: &[Rejected]) -> String {
    let each = rejected.iter().map(|Rejected { reason, path: _ }| format!("; {reason}"));
    each.collect()
}
