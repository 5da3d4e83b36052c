//! Compares what this program and Pillow decode, file by file, on files drawn from a seed: the campaign of
//! deviation D6.
#![forbid(unsafe_code)]

mod campaign;
mod corpus;
mod dice;
#[cfg(test)]
mod golden;
mod jpeg_code;
mod jpeg_extras;
mod jpeg_file;
mod jpeg_options;
mod jpeg_scan;
mod mutate;
mod png_file;
mod verdict;

use std::path::PathBuf;

use campaign::Files;
use clap::{Parser, Subcommand};

/// Compares decoded pictures with Pillow's, file by file, on files drawn from a seed.
#[derive(Debug, Parser)]
#[command(name = "decode-campaign", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decodes files here and with Pillow, and counts how the outcomes agree.
    Run {
        #[command(flatten)]
        files: Files,
        /// A Python with the Pillow of golden/requirements.txt.
        #[arg(long)]
        python: PathBuf,
        /// Folder for the files that agree in no allowed way.
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// Writes files into one, each behind its length.
    Pack {
        /// The file to write.
        pack: PathBuf,
        #[command(flatten)]
        files: Files,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run { files, python, keep } => campaign::run(&files, &python, keep.as_deref()),
        Command::Pack { pack, files } => campaign::pack(&files, &pack),
    }
}
