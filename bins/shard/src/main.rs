//! Makes tar shards from folders and archives, verifies them and tells what they hold.
#![forbid(unsafe_code)]

mod look;
mod make;
mod place;
mod recode;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use moco_cli::{Exit, exit_code, usage};
use moco_ingest::IngestError;

/// Makes, verifies and inspects data sets of tar shards.
#[derive(Debug, Parser)]
#[command(name = "shard", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes shards with their index files, and the manifest that describes them.
    Make(MakeArgs),
    /// Compares every byte of the shards with the manifest and walks over their members.
    Verify(LookArgs),
    /// Tells what the shards hold: images, bytes, labels, hashtags.
    Inspect(LookArgs),
}

/// Arguments of `make`.
#[derive(Debug, Args)]
struct MakeArgs {
    #[command(flatten)]
    from: From,
    /// Folder for the shards.
    #[arg(long)]
    out: PathBuf,
    /// The manifest; where it is there already, the shards of the split are replaced in it.
    #[arg(long)]
    manifest: PathBuf,
    /// Which split the images belong to.
    #[arg(long, value_enum, default_value = "train")]
    split: SplitName,
    /// Short name of the data set.
    #[arg(long)]
    name: String,
    /// Terms under which the images may be used.
    #[arg(long)]
    license: String,
    /// Where the images come from.
    #[arg(long)]
    source: String,
    /// Images in a shard.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    samples_per_shard: u32,
    /// Images with a longer side than this many pixels are made smaller and encoded again as JPEG; all
    /// others keep their bytes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_side: Option<u32>,
    /// Quality of images that are encoded again.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Whether the images keep their order or are mixed, so that each shard holds images of all classes.
    #[arg(long, value_enum, default_value = "mixed")]
    order: Order,
    /// Images that are left out because they are no JPEG or PNG or cannot be decoded, at most; each is
    /// named. One more ends it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_bad: u64,
    /// Decoding threads; the bytes do not depend on it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
}

/// Where the images come from: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct From {
    /// A folder of class/name.JPEG; a name.json beside an image goes in as its metadata.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The same, but the folders of the first level are no classes.
    #[arg(long)]
    unlabeled_folder: Option<PathBuf>,
    /// ILSVRC2012_img_train.tar.
    #[arg(long)]
    imagenet_train: Option<PathBuf>,
    /// ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz.
    #[arg(long, num_args = 2, value_names = ["ARCHIVE", "DEVKIT"])]
    imagenet_val: Option<Vec<PathBuf>>,
}

/// Arguments of `verify` and `inspect`.
#[derive(Debug, Args)]
struct LookArgs {
    /// The manifest.
    manifest: PathBuf,
    /// Folder of the shards, or s3://bucket/prefix or https://host/prefix. For S3 the environment has
    /// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL.
    #[arg(long)]
    root: String,
    /// Folder that holds shards of a store while they are looked at.
    #[arg(long, default_value = "data/cache")]
    cache: PathBuf,
    /// Bytes that the cache may hold.
    #[arg(long, default_value_t = 8 << 30)]
    cache_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Train,
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Mixed,
    Kept,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Make(args) => make::run(&args),
        Command::Verify(args) => look::verify(&args),
        Command::Inspect(args) => look::inspect(&args),
    };
    exit_code(result.map_err(|error| match error.downcast_ref::<IngestError>() {
        Some(_) => usage(Exit::DataOrMachine, format!("{error:#}")),
        None => error,
    }))
}
