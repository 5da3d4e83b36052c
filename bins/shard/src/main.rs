//! Makes tar shards from folders and archives, verifies them and lists their contents.
#![forbid(unsafe_code)]

mod args;
mod describe;
mod doctor;
mod look;
mod make;
mod place;
mod recode;
mod suggestion;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use moco_cli::{Exit, run_program, usage};
use moco_ingest::IngestError;

use crate::args::{DoctorArgs, LookArgs, MakeArgs, ManifestArgs, VerifyArgs};

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
    Verify(VerifyArgs),
    /// Summarizes the shards: images, bytes, labels, hashtags.
    Inspect(LookArgs),
    /// Writes the manifest of shards that others made.
    Manifest(ManifestArgs),
    /// Decodes all images of a folder and says what is in it, as a config that trains on them.
    Doctor(DoctorArgs),
}

fn main() -> ExitCode {
    run_program(|_| {
        let result = match Cli::parse().command {
            Command::Make(args) => make::run(&args),
            Command::Verify(args) => look::verify(&args),
            Command::Inspect(args) => look::inspect(&args),
            Command::Manifest(args) => describe::run(&args),
            Command::Doctor(args) => doctor::run(&args),
        };
        result.map_err(|error| match error.chain().find(|cause| cause.is::<IngestError>()) {
            Some(_) => usage(Exit::DataOrMachine, format!("{error:#}")),
            None => error,
        })
    })
}
