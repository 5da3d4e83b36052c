//! Writes the embedded data set as tar shards, and checks them.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use moco_cli::{Console, Exit, print_result, run_program, usage};
use moco_ingest::{Manifest, ShardSet, Split, Verify};
use moco_telemetry::format_count;
use moco_textures::TexturesConfig;

/// Draws the labeled textures and writes them as tar shards of JPEG files.
///
/// `cargo xtask pretrain` does this by itself when its shards are missing.
#[derive(Debug, Parser)]
#[command(name = "make-data", version)]
struct Args {
    /// Folder for the shards.
    #[arg(long, default_value = "data/textures")]
    out: PathBuf,
    /// Drawing threads; the bytes do not depend on it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Checks shards that are there against this manifest instead of writing.
    #[arg(long, value_name = "MANIFEST")]
    verify: Option<PathBuf>,
}

fn main() -> ExitCode {
    run_program(|_| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Some(manifest) = &args.verify {
        return verify(args, manifest).map_err(|e| usage(Exit::DataOrMachine, e.to_string()));
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut console = Console::detect();
    let config = TexturesConfig::standard(usize::from(args.workers));
    let mut progress = |done: u64, total: u64| {
        if done == 1 {
            console.start(0, total);
        }
        console.advance(done);
        if done == total {
            console.finish();
        }
    };
    let manifest = moco_textures::write(&args.out, &config, &mut progress)?;
    let samples = |split| manifest.shards(split).iter().map(|shard| shard.samples).sum();
    print_result(&format!(
        "{}: {} training and {} held-out images of {} classes",
        args.out.display(),
        format_count(samples(Split::Train)),
        format_count(samples(Split::Test)),
        manifest.classes.len(),
    ));
    Ok(Exit::Done)
}

fn verify(args: &Args, manifest: &std::path::Path) -> anyhow::Result<Exit> {
    let manifest = Manifest::load(manifest)?;
    for split in [Split::Train, Split::Test] {
        if !manifest.shards(split).is_empty() {
            ShardSet::open(&args.out, &manifest, split, Verify::Checksums)?;
            print_result(&format!("{split}: {} shards are right", manifest.shards(split).len()));
        }
    }
    Ok(Exit::Done)
}
