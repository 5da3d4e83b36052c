//! Build, check and run this workspace: `cargo xtask --help`.
//!
//! One subcommand a file. It depends on no crate of the workspace, so it builds in seconds and still
//! runs when a crate does not compile.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod ci;
mod cuda;
mod extend;
mod golden;
mod sha256;
mod stage;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::stage::StageArgs;

const EXAMPLES: &str = "\
Examples:
  cargo xtask pretrain                                  the default run: no data, no network, minutes
  cargo xtask pretrain configs/pretrain/FILE.toml       another recipe
  cargo xtask pretrain --set moco.temperature=0.1       one key changed
  cargo xtask pretrain --resume RUN                     continue where a run stopped
  cargo xtask pretrain --help                           all options (builds the binary first)
  cargo xtask --features remote pretrain FILE.toml      shards on S3 or a web server
  cargo xtask --features cifar pretrain FILE.toml       the files of CIFAR-10 or MNIST
  cargo xtask doctor PHOTOS                             what a folder of images holds, and a config for it
  cargo xtask preview                                   a picture of images and their views
  cargo xtask bench step                                training steps on this CPU compared with PyTorch's
  cargo xtask bench data                                views a second compared with torchvision's
  cargo xtask bench gpu                                 training steps on a GPU compared with PyTorch's
  cargo xtask bench gpu-model                           what a step costs an H100 at least
  cargo xtask ci                                        every check, as the continuous integration runs it
  cargo xtask ci --cuda                                 kernels and portable programs, by NVIDIA's compiler

A stage is built in release mode and then takes the place of this process: its signals, its output and
its exit code are its own. Paths are relative to the root of the repository.";

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, after_help = EXAMPLES)]
struct Cli {
    /// Features that a stage is built with: `remote` for shards on S3 and web servers, `cifar` for the
    /// files of CIFAR-10 and MNIST, `cuda`
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    features: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pretrain an encoder by Momentum Contrast; without arguments, the default run
    #[command(disable_help_flag = true)]
    Pretrain(StageArgs),
    /// Draw images and their views as the trainer sees them
    #[command(disable_help_flag = true)]
    Preview(StageArgs),
    /// Write a data set as tar shards with a manifest
    #[command(disable_help_flag = true)]
    MakeData(StageArgs),
    /// Make, verify, inspect and describe tar shards of images
    #[command(disable_help_flag = true)]
    Shard(StageArgs),
    /// Decode all images of a folder, say what is wrong, and suggest a config
    #[command(disable_help_flag = true)]
    Doctor(StageArgs),
    /// Train a linear classifier on the frozen features of a run
    #[command(disable_help_flag = true)]
    Lincls(StageArgs),
    /// Classify by the nearest neighbors of frozen features
    #[command(disable_help_flag = true)]
    Knn(StageArgs),
    /// Write the features of images to a file
    #[command(disable_help_flag = true)]
    Extract(StageArgs),
    /// Do training steps from a state and a batch in files: the door for parity checks
    #[command(disable_help_flag = true)]
    Step(StageArgs),
    /// Measure side by side with what others use
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Make what a build for CUDA needs out of pinned packages, and print its environment
    CudaSetup(cuda::SetupArgs),
    /// Pack the binaries for machines that have no Rust
    Dist(cuda::DistArgs),
    /// Pack everything that proves the workspace on a machine with a GPU, in one archive
    GpuCheck,
    /// Run every check, cheapest first, and stop at the first that fails
    Ci(ci::CiArgs),
    /// Check the house rules: layers, sizes, words and the like
    Tidy,
    /// Apply the diffs of docs/extend.md to a copy, and check it
    Extend,
    /// Look after the golden files of the tests
    Golden(GoldenArgs),
}

#[derive(Debug, Args)]
struct GoldenArgs {
    /// Check that each golden file has its pinned generator and says what made it
    #[arg(long, required = true)]
    check: bool,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let result = if cuda::nvcc::is_called(args.next().as_deref()) {
        cuda::nvcc::run(&args.collect::<Vec<_>>())
    } else {
        run(Cli::parse())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // The code that the stages end with on a machine that does not fit.
            if error.is::<bench::Unfit>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

fn run(Cli { features, command }: Cli) -> anyhow::Result<()> {
    let (name, StageArgs { args }) = match command {
        Command::Pretrain(stage) => ("pretrain", stage),
        Command::Preview(stage) => ("preview", stage),
        Command::MakeData(stage) => ("make-data", stage),
        Command::Lincls(stage) => ("lincls", stage),
        Command::Knn(stage) => ("knn", stage),
        Command::Extract(stage) => ("extract", stage),
        Command::Shard(stage) => ("shard", stage),
        // A part of the program `shard`, with a name of its own: whoever needs it has no shards yet.
        Command::Doctor(StageArgs { mut args }) => {
            args.insert(0, "doctor".into());
            ("shard", StageArgs { args })
        }
        Command::Step(stage) => ("step", stage),
        _ if !features.is_empty() => bail!("--features is for the stages, which are built first"),
        Command::Bench(bench) => return bench::run(&bench),
        Command::CudaSetup(args) => return cuda::setup(&args),
        Command::Dist(args) => return cuda::dist(&args),
        Command::GpuCheck => return cuda::gpu_check(),
        Command::Ci(args) => return ci::run(&args),
        Command::Tidy => return tidy::run(),
        Command::Extend => return extend::run(),
        Command::Golden(_) => return golden::run(),
    };
    stage::run(name, &features, &args)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_stage_gets_its_arguments_untouched() {
        let words = ["a.toml", "--set", "moco.temperature=0.1", "--help", "-x", "--resume", "0007"];
        let line = ["cargo xtask", "pretrain"].into_iter().chain(words);
        let Command::Pretrain(stage) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not the pretrain stage");
        };
        assert_eq!(stage.args, words);
    }

    #[test]
    fn features_before_the_stage_are_the_build_s_and_behind_it_the_stage_s() {
        let line = ["cargo xtask", "--features", "remote,cuda", "knn", "--features", "x"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert_eq!(cli.features, ["remote", "cuda"]);
        assert!(matches!(cli.command, Command::Knn(stage) if stage.args == ["--features", "x"]));
        let golden = ["cargo xtask", "--features=remote", "golden", "--check"];
        let error = run(Cli::try_parse_from(golden).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "--features is for the stages, which are built first");
    }

    #[test]
    fn an_unknown_command_names_its_neighbor() {
        let error = Cli::try_parse_from(["cargo xtask", "pretrian"]).unwrap_err().to_string();
        assert!(error.contains("'pretrain'"), "{error}");
    }
}
