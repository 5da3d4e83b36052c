//! Manifests, tar shards, folders and archives of images, and the order of samples.
//!
//! A [`Manifest`] says which shards a data set has and what their bytes must be, a [`ShardWriter`] makes
//! shards, a [`ShardSet`] reads single samples out of them, and a [`Sampler`] says which sample comes
//! when. A [`Source`] is anything that returns [`EncodedSample`]s by index.
//!
//! ```
//! # fn main() -> Result<(), moco_ingest::IngestError> {
//! # let root = tempfile::tempdir().expect("a temporary folder");
//! use moco_ingest::{ImageFormat, Manifest, ShardSet, ShardWriter, Source, Split, Verify};
//! let mut writer = ShardWriter::new(root.path(), "train", 1000)?;
//! writer.push("0000", ImageFormat::Jpeg, b"the bytes of an image", Some(1))?;
//! let manifest = Manifest {
//!     name: "tiny".to_owned(),
//!     classes: vec!["cat".to_owned(), "dog".to_owned()],
//!     train: writer.finish()?,
//!     ..Manifest::default()
//! };
//! let shards = ShardSet::open(root.path(), &manifest, Split::Train, Verify::Checksums)?;
//! assert_eq!(shards.label(0)?, Some(1));
//! assert_eq!(shards.read(0)?.key.to_string(), "train-000000.tar/0000");
//! # Ok(())
//! # }
//! ```
//!
//! # From a billion samples to one
//!
//! `Sampler::windowed` permutes the shards of an epoch and then the samples within windows of a few
//! shards; the state of a run is its position. [`read_ahead`] announces to the source which shards the
//! next window needs. [`ShardSet::lazy`] takes their sizes from the manifest and finds the shard of a sample by
//! bisection; the shard is in a folder, in a [`ShardCache`] before a [`Store`], or is read by ranges
//! from one. The cache fetches in chunks, checks the checksum, and drops what was not used for the longest
//! time. A store is a folder, or with the feature `remote` an S3 bucket or a web server; only these
//! retry: transient faults are distinguished from permanent ones ([`IngestError::is_transient`]).
//!
//! The place of each sample in a shard is found by one pass over the headers, or listed in an index file
//! `SHARD.idx` that a [`ShardWriter`] makes on request.
//!
//! What it deliberately lacks: decoding, threads but those that fetch ahead, a shuffle buffer, and skipping a bad sample in silence.
#![forbid(unsafe_code)]

mod ahead;
mod bad_sample;
mod bad_samples;
mod cache;
mod describe;
mod devkit;
mod digest;
mod durable;
mod error;
mod folder;
mod imagenet;
mod index;
mod labels;
mod listed;
mod listing;
mod manifest;
mod mat;
mod one_sample;
mod remedy;
#[cfg(feature = "remote")]
mod remote;
mod sampler;
mod scan;
mod shards;
mod shelf;
mod sidecar;
mod source;
mod split;
mod store;
mod survey;
mod walk;
mod windows;
mod writer;

pub use ahead::read_ahead;
pub use bad_sample::BadSample;
pub use bad_samples::{BadSamples, OnBadSample, OverBudget};
pub use cache::{CacheReport, ShardCache};
pub use describe::{describe_shard, labels_of_shard};
pub use digest::DataDigest;
pub use error::{IngestError, Remedy};
pub use folder::{ImageFolder, Layout};
pub use imagenet::{ImageNet, Progress};
pub use labels::with_labels_of;
pub use manifest::{Manifest, ShardEntry};
#[cfg(feature = "remote")]
pub use remote::{Patience, Remote, S3Access};
pub use sampler::{Sampler, ShardVisit, Slot};
pub use shards::{ShardPlace, ShardSet, Verify};
pub use sidecar::check_metadata;
pub use source::{EncodedSample, Payload, SampleKey, Source};
pub use split::Split;
pub use store::{FolderStore, Part, Store};
pub use survey::Survey;
pub use writer::{ImageFormat, IndexFiles, ShardWriter, shard_file};
