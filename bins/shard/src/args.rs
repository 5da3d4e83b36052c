//! The arguments of the subcommands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use moco_ingest::Split;

/// Arguments of `make`.
#[derive(Debug, Args)]
pub(crate) struct MakeArgs {
    #[command(flatten)]
    pub(crate) from: From,
    /// Folder for the shards.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) described: Described,
    /// Images in a shard.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) samples_per_shard: u32,
    /// Images with a longer side than this many pixels are made smaller and encoded again as JPEG; all
    /// others keep their bytes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_side: Option<u32>,
    /// Quality of images that are encoded again.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) quality: u8,
    /// Whether the images keep their order or are mixed, so that each shard holds images of all classes.
    #[arg(long, value_enum, default_value = "mixed")]
    pub(crate) order: Order,
    /// Images that may be left out because they are empty or do not decode, and as many more that are seen to
    /// be unusable without being opened, such as .heic. The first are listed in OUT/bad_samples.txt; if there
    /// are more of either, no manifest is written.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip_bad: u64,
    /// Decoding threads; the bytes do not depend on it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: u16,
}

/// The manifest that describes shards, and what it says of them.
#[derive(Debug, Args)]
pub(crate) struct Described {
    /// The manifest; where it is there already, the shards of the split are replaced in it.
    #[arg(long)]
    pub(crate) manifest: PathBuf,
    /// Which split the images belong to.
    #[arg(long, value_enum, default_value = "train")]
    pub(crate) split: SplitName,
    #[command(flatten)]
    pub(crate) about: About,
}

/// What a manifest says of a data set.
#[derive(Debug, Args)]
pub(crate) struct About {
    /// Short name of the data set.
    #[arg(long)]
    pub(crate) name: String,
    /// Terms under which the images may be used.
    #[arg(long)]
    pub(crate) license: String,
    /// Where the images come from; the address that they were downloaded from, if there is one.
    #[arg(long)]
    pub(crate) source: String,
}

/// Arguments of `manifest`.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// Folder of the shards: all files NAME.tar in it.
    pub(crate) root: PathBuf,
    #[command(flatten)]
    pub(crate) described: Described,
    /// A file with the names of the classes, one a line, in the order of the labels. If left out, classes
    /// are named by their numbers where the shards have labels.
    #[arg(long)]
    pub(crate) classes: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The folder of images.
    pub(crate) folder: PathBuf,
    /// Decoding threads.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: u16,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// Decodes every image too, as training does, and names those that cannot be decoded.
    #[arg(long)]
    pub(crate) decode: bool,
    /// Decoding threads.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) workers: u16,
}

/// Where the images come from: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct From {
    /// A folder of class/name.JPEG; a name.json beside an image goes in as its metadata.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// A folder of images at any depth, of which none has a class.
    #[arg(long)]
    pub(crate) unlabeled_folder: Option<PathBuf>,
    /// ILSVRC2012_img_train.tar.
    #[arg(long)]
    pub(crate) imagenet_train: Option<PathBuf>,
    /// ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz.
    #[arg(long, num_args = 2, value_names = ["ARCHIVE", "DEVKIT"])]
    pub(crate) imagenet_val: Option<Vec<PathBuf>>,
}

/// Arguments of `verify` and `inspect`.
#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// The manifest.
    pub(crate) manifest: PathBuf,
    /// Folder of the shards, or s3://bucket/prefix or https://host/prefix. For S3 the environment has
    /// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL.
    #[arg(long)]
    pub(crate) root: String,
    /// Folder that holds shards of a store while they are looked at.
    #[arg(long, default_value = "data/cache")]
    pub(crate) cache: PathBuf,
    /// Bytes that the cache may hold.
    #[arg(long, default_value_t = 8 << 30)]
    pub(crate) cache_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitName {
    Train,
    Test,
}

impl std::convert::From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Test => Self::Test,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    Mixed,
    Kept,
}
