//! The arguments.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use moco_cli::Device;

const EXAMPLES: &str = "\
Examples:
  cargo xtask pretrain                                    the default run, under 5 minutes on 2 cores
  cargo xtask pretrain --set run.seed=1 --name seed-1     another seed
  cargo xtask --features cifar pretrain configs/pretrain/cifar10-notebook.toml --set data.root=FOLDER
  cargo xtask pretrain --resume seed-1                    continue where it stopped
  cargo xtask pretrain --resume seed-1 --extend 6000      continue up to 6000 steps in all
  cargo xtask pretrain --fork seed-1 --set optim.base_lr=0.01
                                                          another run from its encoders and queue

Exit codes: 0 done, 1 failed, 2 usage or config, 3 bad data or missing device, 4 stopped by a health rule,
75 stopped on request and resumable, 130 second Ctrl-C.";

/// Pretrains an image encoder by Momentum Contrast and measures it at the end.
///
/// Ctrl-C, SIGTERM and SIGUSR1 finish the step, save a checkpoint and exit with code 75.
#[derive(Debug, Parser)]
#[command(name = "pretrain", version, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Args {
    /// The config; `configs/pretrain/` holds the papers' recipes.
    #[arg(default_value = "configs/pretrain/default.toml", conflicts_with_all = ["resume", "fork"])]
    pub(crate) config: PathBuf,
    /// Overrides a key of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Continues this run from its newest valid checkpoint.
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<String>,
    /// With --resume: makes the run this many steps long in all, more than before. The schedule is computed
    /// over the new total, so the learning rate jumps; the jump is printed.
    #[arg(long, value_name = "STEPS")]
    pub(crate) extend: Option<u64>,
    /// With --resume: writes config.toml again with the checkpoint's values.
    #[arg(long)]
    pub(crate) restore_config: bool,
    /// With --resume: continues on images that are not those of the checkpoint.
    #[arg(long)]
    pub(crate) accept_changed_data: bool,
    /// With --resume: continues from the state of another run's checkpoint.
    #[arg(long)]
    pub(crate) accept_foreign_checkpoint: bool,
    /// Begins another run with the config, both encoders and the queue of this run's newest checkpoint, from
    /// step 0 and with momentum buffers of zero.
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    pub(crate) fork: Option<String>,
    /// Name of the run; the next number and the config's name if left out.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) name: Option<String>,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: Device,
    /// Folder of all runs.
    #[arg(long, default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Prints the resolved config with the origin of each key and ends.
    #[arg(long)]
    pub(crate) print_config: bool,
}

impl Args {
    /// The arguments of the command line. A flag that needs `--resume` is refused here, since clap does not
    /// miss an argument that another one excludes, and a config excludes `--resume`.
    pub(crate) fn of_command_line() -> Self {
        let args = Self::parse();
        let given = [
            ("--extend", args.extend.is_some()),
            ("--restore-config", args.restore_config),
            ("--accept-changed-data", args.accept_changed_data),
            ("--accept-foreign-checkpoint", args.accept_foreign_checkpoint),
        ];
        if args.resume.is_none()
            && let Some((flag, _)) = given.into_iter().find(|(_, is_given)| *is_given)
        {
            let text = format!("{flag} needs --resume <RUN>");
            Self::command().error(ErrorKind::MissingRequiredArgument, text).exit();
        }
        args
    }
}
