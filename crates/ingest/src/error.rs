//! Errors of manifests, shards and requests, each with a hint for the user.

use std::{io, path::PathBuf};

pub use crate::remedy::Remedy;
use crate::{
    listed::{counted, listed},
    remedy::missing_hint,
    split::Split,
};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation that failed, a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The manifest file does not exist.
    #[error("no manifest at {}; {hint}", path.display())]
    ManifestMissing {
        /// The path that was searched.
        path: PathBuf,
        /// A hint for the user.
        hint: &'static str,
    },
    /// The manifest is not what a manifest must be.
    #[error("{}:{line}: {message}; {hint}", path.display())]
    ManifestInvalid {
        /// The manifest.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The reason.
        message: String,
        /// A hint for the user.
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
        /// A hint for the user.
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
        /// A hint for the user.
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
        /// A hint for the user.
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
        /// A hint for the user.
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
        /// A hint for the user.
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
        /// A hint for the user.
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
    /// An image of a format that is not decoded.
    #[error(
        "shard {} holds the image {member:?}, whose format is not decoded here; \
         make the shard again of JPEG, PNG, WebP, BMP, TIFF or GIF files",
        shard.display()
    )]
    MemberFormat {
        /// Path of the shard.
        shard: PathBuf,
        /// Name of the image.
        member: String,
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
    #[error("shard {} holds no image for the sample {key:?}; make the shard again with it, or without the label", shard.display())]
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
        /// Its contents, cut short.
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
    /// Metadata that is no JSON.
    #[error("shard {}: the metadata {member:?} cannot be read: {problem}; make the shard again", shard.display())]
    MetadataSyntax {
        /// Path of the shard.
        shard: PathBuf,
        /// Name of the metadata's member.
        member: String,
        /// The reason.
        problem: String,
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
        /// The requested value.
        sample_index: u64,
        /// Number of samples.
        n_samples: u64,
    },
    /// A shard beyond the last one.
    #[error("shard {shard_idx} was asked for, but the data set has {n_shards}")]
    ShardIndex {
        /// The requested value.
        shard_idx: usize,
        /// Number of shards.
        n_shards: usize,
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
    /// A window of no shards.
    #[error("a window must hold at least 1 shard, got 0")]
    WindowEmpty,
    /// A batch that ranks cannot share, or a rank that is not one of them.
    #[error("{}", ranks_text(*rank, *world_size, *batch_size))]
    Ranks {
        /// The rank.
        rank: u64,
        /// Number of ranks.
        world_size: u64,
        /// Samples in a batch of all ranks.
        batch_size: u64,
    },
    /// An image of no bytes.
    #[error("shard {} holds no byte of the image {key:?} at offset {offset}; make the shard again without it", shard.display())]
    ImageEmpty {
        /// Path of the shard.
        shard: PathBuf,
        /// The sample.
        key: String,
        /// Where the image should be.
        offset: u64,
    },
    /// A file that was to hold an image.
    #[error("{} is no image that can be read: it has {got} bytes, expected 1 to {limit}; remove it", path.display())]
    ImageSize {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        got: u64,
        /// The largest length allowed in bytes.
        limit: u64,
    },
    /// A file that was there when the folder was listed and cannot be opened.
    #[error("{} is no image that can be read: {problem}; repair or remove it", path.display())]
    ImageFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// Images of a folder that cannot be used, seen without opening them.
    #[error(
        "{} holds {} that cannot be used:{table}\n  convert or remove them, or leave them out by \
         data.on_bad_sample = \"skip\" and data.bad_sample_budget = {} or more (`shard make`: --skip-bad {n}); \
         `cargo xtask doctor {}` says what else the folder holds, and which images are broken",
        path.display(),
        if *n == 1 { "an image".to_owned() } else { format!("{n} images") },
        (*n).max(100),
        path.display()
    )]
    FolderUnusable {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        n: u64,
        /// A line for each kind of them.
        table: String,
    },
    /// Folders of classes in which no image is.
    #[error(
        "{} has no image in {}; remove the empty folders, or take all images without classes by \
         data.source = \"unlabeled_folder\"",
        path.display(),
        listed(classes)
    )]
    ClassesEmpty {
        /// The folder.
        path: PathBuf,
        /// The folders in it.
        classes: Vec<String>,
    },
    /// A folder without images.
    #[error(
        "{} holds no images{}; expected files that end in .jpg, .png, .webp, .bmp, .tif or .gif, in a folder \
         for each class or, with data.source = \"unlabeled_folder\", anywhere",
        path.display(),
        if left_out.is_empty() { String::new() } else { format!(" ({left_out})") }
    )]
    FolderEmpty {
        /// The folder.
        path: PathBuf,
        /// What it holds instead.
        left_out: String,
    },
    /// Test images of classes that the training images lack.
    #[error(
        "the test images in {} have {} that the training images lack: {}; the training images have {}: {}; \
         classes are matched by name: remove or rename those folders, or add training images of these classes",
        path.display(), counted(unknown), listed(unknown), known.len(), listed(known)
    )]
    UnknownClasses {
        /// Where the test images are.
        path: PathBuf,
        /// The classes that only they have.
        unknown: Vec<String>,
        /// The classes of the training images.
        known: Vec<String>,
    },
    /// An archive that is not the one that was expected.
    #[error("archive {} {problem}; {hint}", path.display())]
    ArchiveUnfit {
        /// The archive or a file of its devkit.
        path: PathBuf,
        /// The reason.
        problem: String,
        /// A hint for the user.
        hint: &'static str,
    },
    /// An index file that does not belong to its shard, or is damaged.
    #[error("index {index} is unfit: {problem}; delete it, or make it again with `shard make`")]
    IndexUnfit {
        /// Path or name of the index.
        index: String,
        /// The reason.
        problem: &'static str,
    },
    /// More names than an index can hold.
    #[error("{} holds more than 4 GiB of file names; split it", path.display())]
    IndexTooLarge {
        /// The indexed file.
        path: PathBuf,
    },
    /// The store has no such object.
    #[error("shard {key} is missing from {store} (404); upload it, or correct the address")]
    StoreMissing {
        /// Name of the object.
        key: String,
        /// Address of the store.
        store: String,
    },
    /// The store does not let this user read.
    #[error(
        "{store} denies access to shard {key} (401 or 403); check the credentials and the rights of the bucket"
    )]
    StoreDenied {
        /// Name of the object.
        key: String,
        /// Address of the store.
        store: String,
        /// The store's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed each time that it was asked, in ways that may pass.
    #[error(
        "cannot read {needed} of shard {key} at offset {offset} from {store}: {attempts} attempts failed, the last one {how}; try again later"
    )]
    StoreFailed {
        /// Name of the object.
        key: String,
        /// Address of the store.
        store: String,
        /// First byte that was asked for.
        offset: u64,
        /// How much was asked for.
        needed: String,
        /// How often it was asked for.
        attempts: u32,
        /// How the last attempt ended.
        how: String,
        /// The last reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot be used in this way, now or later.
    #[error("store {store} cannot be used: {problem}")]
    StoreUnfit {
        /// Address of the store.
        store: String,
        /// Why.
        problem: String,
    },
    /// A shard is larger than the whole cache.
    #[error("shard {key} has {needed} bytes, but the cache {} may hold {capacity}; raise its capacity", folder.display())]
    CacheTooSmall {
        /// Folder of the cache.
        folder: PathBuf,
        /// The shard.
        key: String,
        /// Bytes of the shard.
        needed: u64,
        /// Bytes that the cache may hold.
        capacity: u64,
    },
    /// A cache was dropped while a shard was on its way.
    #[error("the cache was closed while shard {key} was on its way")]
    CacheClosed {
        /// The shard.
        key: String,
    },
    /// Two processes share a cache.
    #[error("the cache {} is in use by another process; give each process a folder of its own", folder.display())]
    CacheBusy {
        /// Folder of the cache.
        folder: PathBuf,
    },
    /// Threads that read ahead could not start or ended.
    #[error(transparent)]
    Pipeline(#[from] moco_pipeline::PipelineError),
}

fn ranks_text(rank: u64, world_size: u64, batch_size: u64) -> String {
    if rank >= world_size {
        return format!("rank {rank} does not exist among {world_size} ranks, which count from 0");
    }
    format!(
        "a batch of {batch_size} samples cannot be split evenly over {world_size} ranks; choose a multiple of {world_size}"
    )
}

impl IngestError {
    /// Whether the same request may succeed at another time; everything else fails until a person acts.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::StoreFailed { .. })
    }

    /// For `map_err`: adds what was tried with which file.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
