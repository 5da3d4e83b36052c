//! What can be wrong with a manifest, a shard or a request, each with what to do about it.

use std::{fmt, io, path::PathBuf};

use crate::manifest::Split;

/// How a user gets a sound copy of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The data set comes from a generator of this workspace.
    Regenerate,
    /// The data set comes from elsewhere.
    Download,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regenerate => "delete it and run `cargo xtask make-data`",
            Self::Download => "download it again",
        })
    }
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The manifest file does not exist.
    #[error("no manifest at {}; {hint}", path.display())]
    ManifestMissing {
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The manifest is not what a manifest must be.
    #[error("{}:{line}: {message}; {hint}", path.display())]
    ManifestInvalid {
        /// The manifest.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// A manifest in memory cannot be written as TOML.
    #[error("cannot write the manifest of {name} as toml")]
    ManifestEncode {
        /// The data set.
        name: String,
        /// The encoder's reason.
        source: toml::ser::Error,
    },
    /// The manifest lists no shard for this split.
    #[error(
        "data set {name} has no {split} shards; add them to its manifest or choose another data set"
    )]
    SplitEmpty {
        /// The data set.
        name: String,
        /// The split that was asked for.
        split: Split,
    },
    /// A shard of the manifest is not on disk.
    #[error("shard {} is missing; {}", shard.display(), missing_hint(*remedy))]
    ShardMissing {
        /// Path of the shard.
        shard: PathBuf,
        /// What to do.
        remedy: Remedy,
    },
    /// A shard ends in the middle of something.
    #[error("shard {} is truncated: {needed} bytes needed at offset {offset}, got {got}; {remedy}", shard.display())]
    ShardTruncated {
        /// Path of the shard.
        shard: PathBuf,
        /// Where the cut piece starts.
        offset: u64,
        /// Bytes the piece has.
        needed: u64,
        /// Bytes that are there.
        got: u64,
        /// What to do.
        remedy: Remedy,
    },
    /// A shard has not the length that the manifest gives.
    #[error("shard {} has the wrong size: expected {expected} bytes, got {got}; {remedy}", shard.display())]
    ShardSize {
        /// Path of the shard.
        shard: PathBuf,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes on disk.
        got: u64,
        /// What to do.
        remedy: Remedy,
    },
    /// A shard has the right length and other bytes.
    #[error("shard {} has the wrong checksum: expected blake3 {expected}, got {got}; {remedy}", shard.display())]
    ShardChecksum {
        /// Path of the shard.
        shard: PathBuf,
        /// Checksum in the manifest.
        expected: String,
        /// Checksum on disk.
        got: String,
        /// What to do.
        remedy: Remedy,
    },
    /// A shard holds another number of samples than the manifest gives.
    #[error("shard {} has the wrong number of samples: expected {expected}, got {got}; {remedy}", shard.display())]
    ShardSamples {
        /// Path of the shard.
        shard: PathBuf,
        /// Samples in the manifest.
        expected: u64,
        /// Samples on disk.
        got: u64,
        /// What to do.
        remedy: Remedy,
    },
    /// A tar header cannot be read.
    #[error("shard {} has a bad tar header at offset {offset}; {remedy}", shard.display())]
    ShardHeader {
        /// Path of the shard.
        shard: PathBuf,
        /// Where the header starts.
        offset: u64,
        /// The reader's reason.
        source: io::Error,
        /// What to do.
        remedy: Remedy,
    },
    /// A member that no data set needs and that could do harm.
    #[error("shard {} holds the member {member:?}, which is refused: {reason}; get the shard from a source that you trust", shard.display())]
    MemberRefused {
        /// Path of the shard.
        shard: PathBuf,
        /// Name of the member.
        member: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A member above the size cap.
    #[error("shard {} holds the member {member:?} of {got} bytes, the limit is {limit}; make the shard again with smaller images", shard.display())]
    MemberTooLarge {
        /// Path of the shard.
        shard: PathBuf,
        /// Name of the member.
        member: String,
        /// Its size in bytes.
        got: u64,
        /// The largest size allowed in bytes.
        limit: u64,
    },
    /// Two images, or two labels, of the same sample.
    #[error("shard {} holds a second {what} for the sample {key:?}; make the shard again with distinct keys", shard.display())]
    DuplicateKey {
        /// Path of the shard.
        shard: PathBuf,
        /// The key.
        key: String,
        /// "image" or "label".
        what: &'static str,
    },
    /// A label without an image.
    #[error("shard {} holds no image for the sample {key:?}; images end in .jpg, .jpeg or .png", shard.display())]
    SampleWithoutImage {
        /// Path of the shard.
        shard: PathBuf,
        /// The key.
        key: String,
    },
    /// A label that is not a number.
    #[error("shard {}: {member:?} must hold a class number in decimal, got {got:?}; remove `classes` from the manifest if these are no labels", shard.display())]
    LabelSyntax {
        /// Path of the shard.
        shard: PathBuf,
        /// Name of the label's member.
        member: String,
        /// What it holds, cut short.
        got: String,
    },
    /// A label that no class of the manifest has.
    #[error("shard {}: {member:?} holds the label {got}, but the manifest names {n_classes} classes (0 to {}); add the missing classes", shard.display(), n_classes - 1)]
    LabelRange {
        /// Path of the shard.
        shard: PathBuf,
        /// Name of the label's member.
        member: String,
        /// The label.
        got: u32,
        /// Number of classes in the manifest, at least 1.
        n_classes: usize,
    },
    /// A key that a shard cannot hold.
    #[error(
        "{key:?} cannot be a sample's key: it must have 1 to 80 characters of a-z, A-Z, 0-9, _ and -"
    )]
    KeyInvalid {
        /// The key.
        key: String,
    },
    /// A sample beyond the end of the data set.
    #[error("sample {sample_index} was asked for, but the data set has {n_samples}")]
    SampleIndex {
        /// What was asked for.
        sample_index: u64,
        /// Number of samples.
        n_samples: u64,
    },
    /// An epoch would not hold one batch.
    #[error(
        "a batch of {batch_size} samples cannot be drawn from {n_samples}; lower the batch size or add data"
    )]
    BatchSize {
        /// Samples in the data set.
        n_samples: u64,
        /// Samples in a batch.
        batch_size: u64,
    },
    /// Shards of no samples.
    #[error("a shard must hold at least 1 sample, got 0")]
    ShardCapacity,
}

fn missing_hint(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Regenerate => "run `cargo xtask make-data`",
        Remedy::Download => "download it, or correct the data folder",
    }
}

impl IngestError {
    /// For `map_err`: adds what was tried with which file.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
