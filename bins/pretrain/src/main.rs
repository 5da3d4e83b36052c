//! Pretrains an encoder by Momentum Contrast.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Parser;
use moco_cli::{
    Console, Device, Exit, components, default_name, exit_code, print_result, stop_on_signals,
    summary_table, watch,
};
use moco_config::{LoadedPretrain, check_resume, load_pretrain, load_stored_pretrain};
use moco_telemetry::RunLog;
use moco_train::{Control, Outcome, RunFolder, pretrain};

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

const EXAMPLES: &str = "\
Examples:
  cargo xtask pretrain                                    the default run, under 5 minutes on 2 cores
  cargo xtask pretrain --set run.seed=1 --name seed-1     another seed
  cargo xtask --features cifar pretrain configs/pretrain/cifar10-notebook.toml --set data.root=FOLDER
  cargo xtask pretrain --resume seed-1                    continue where it stopped

Exit codes: 0 done, 1 failed, 2 usage or config, 3 bad data or missing device, 4 stopped by a health rule,
75 stopped on request and resumable, 130 second Ctrl-C.";

/// Pretrains an image encoder by Momentum Contrast and measures it at the end.
///
/// Ctrl-C, SIGTERM and SIGUSR1 finish the step, save a checkpoint and exit with code 75.
#[derive(Debug, Parser)]
#[command(name = "pretrain", version, after_help = EXAMPLES)]
struct Args {
    /// The config; `configs/pretrain/` holds the papers' recipes.
    #[arg(default_value = "configs/pretrain/default.toml", conflicts_with = "resume")]
    config: PathBuf,
    /// Overrides a key of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Continues this run from its newest valid checkpoint.
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    /// Name of the run; the next number and the config's name if left out.
    #[arg(long, conflicts_with = "resume")]
    name: Option<String>,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Folder of all runs.
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Prints the resolved config with the origin of each key and ends.
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    if let Some(name) = &args.resume {
        let resume = RunFolder::resume(&args.runs, name)?;
        let loaded = load_stored_pretrain(&resume.folder.file("config.toml"), &args.sets)?;
        check_resume(name, resume.folder.config(), &loaded.resolved)?;
        let device = args.device.open_for(&loaded.plan)?;
        return train(args, &device, &loaded, &resume.folder, Some(&resume.newest), &stop);
    }
    let loaded = load_pretrain(&args.config, &args.sets)?;
    if args.print_config {
        print_result(&loaded.resolved);
        return Ok(Exit::Done);
    }
    let device = args.device.open_for(&loaded.plan)?;
    let name = args.name.clone().unwrap_or_else(|| default_name(&args.runs, &args.config));
    let folder = RunFolder::create(&args.runs, &name, &loaded.resolved)?;
    let outcome = train(args, &device, &loaded, &folder, None, &stop);
    if outcome.is_err() {
        // The run's own error is reported, whatever becomes of its folder.
        drop(folder.give_back());
    }
    outcome
}

fn train(
    args: &Args,
    device: &candle_core::Device,
    loaded: &LoadedPretrain,
    folder: &RunFolder,
    newest: Option<&moco_train::Newest>,
    stop: &std::sync::atomic::AtomicBool,
) -> anyhow::Result<Exit> {
    let mut console = Console::detect();
    let run_log = RunLog::append(&folder.file("run.log"))?;
    console.line(&format!("run    {}  seed {}", folder.path().display(), loaded.plan.seed.0));
    let components = components(loaded, device)?;
    let is_stopping = || stop.load(Ordering::Relaxed);
    let mut log = |line: &str| run_log.line(line);
    let outcome = {
        let mut observe = watch(&mut console, &is_stopping, &mut log);
        let control = Control { stop, observe: &mut observe };
        moco_pipeline::run_on_big_stack("trainer", || {
            pretrain(&loaded.plan, components, folder, newest, control)
        })?
    };
    console.finish();
    match outcome? {
        Outcome::Finished(summary) => {
            print_result(&summary_table(&summary));
            print_result(&format!("\nrun folder: {}", folder.path().display()));
            Ok(Exit::Done)
        }
        Outcome::Stopped { global_step, run } => {
            let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let runs = runs_argument(&args.runs);
            console.line(&format!(
                "saved step {global_step}; continue: cargo xtask pretrain --resume {name}{runs}"
            ));
            Ok(Exit::Saved)
        }
    }
}

fn runs_argument(runs: &Path) -> String {
    if runs == Path::new("runs") { String::new() } else { format!(" --runs {}", runs.display()) }
}
