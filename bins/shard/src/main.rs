//! Makes tar shards from folders and archives, verifies them and lists their contents.
#![forbid(unsafe_code)]

mod args;
mod look;
mod make;
mod place;
mod recode;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use moco_cli::{Exit, run_program, usage};
use moco_ingest::IngestError;

use crate::args::{LookArgs, MakeArgs};

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
    /// Summarizes the shards: images, bytes, labels, hashtags.
    Inspect(LookArgs),
}

fn main() -> ExitCode {
    run_program(|_| {
        let result = match Cli::parse().command {
            Command::Make(args) => make::run(&args),
            Command::Verify(args) => look::verify(&args),
            Command::Inspect(args) => look::inspect(&args),
        };
        result.map_err(|error| match error.downcast_ref::<IngestError>() {
            Some(_) => usage(Exit::DataOrMachine, format!("{error:#}")),
            None => error,
        })
    })
}
