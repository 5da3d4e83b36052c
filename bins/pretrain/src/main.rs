//! Pretrains an encoder by Momentum Contrast.
#![forbid(unsafe_code)]

mod args;
mod resume;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use moco_cli::{
    Console, Exit, components, default_name, log_result, print_result, refuse_ranks, run_program,
    stop_on_signals, summary_table, warn_of_rejected, watch,
};
use moco_config::{LoadedPretrain, load_pretrain, load_stored_pretrain};
use moco_telemetry::RunLog;
use moco_train::{
    ChangedData, Continued, Control, Outcome, RunFolder, SavedRun, Start, finished, pretrain,
};

use crate::args::Args;

#[global_allocator]
static ALLOCATOR: moco_ops::Recycler<mimalloc::MiMalloc> =
    moco_ops::Recycler::new(mimalloc::MiMalloc);

fn main() -> ExitCode {
    run_program(|log| run(&Args::of_command_line(), log))
}

fn run(args: &Args, log: &RunLog) -> anyhow::Result<Exit> {
    refuse_ranks()?;
    let stop = stop_on_signals()?;
    match &args.resume {
        Some(name) => continued(args, name, &stop, log),
        None => begun(args, &stop, log),
    }
}

/// A run that stopped.
fn continued(args: &Args, name: &str, stop: &AtomicBool, log: &RunLog) -> anyhow::Result<Exit> {
    let opened = resume::open(args, name, log)?;
    if args.print_config {
        print_result(&opened.loaded.resolved);
        return Ok(Exit::Done);
    }
    let (plan, resume) = (&opened.loaded.plan, &opened.resume);
    if opened.extended_from.is_none()
        && let Some(summary) = finished(plan, &resume.folder, &resume.newest)?
    {
        let (path, steps) = (resume.folder.path().display(), summary.steps);
        let note = format!("{path} is finished after {steps} steps; nothing is left to do");
        print_result(&format!("{}\n\n{note}", summary_table(&summary)));
        return Ok(Exit::Done);
    }
    let accepts = args.accept_changed_data;
    let start = Start::Resume(Continued {
        newest: &opened.resume.newest,
        changed_data: if accepts { ChangedData::Accept } else { ChangedData::Refuse },
        extended_from: opened.extended_from,
    });
    let device = args.device.open_for(&opened.loaded.plan)?;
    train(&device, &opened.loaded, &opened.resume.folder, start, stop)
}

/// A new run, from random weights or from those of another run.
fn begun(args: &Args, stop: &AtomicBool, log: &RunLog) -> anyhow::Result<Exit> {
    let parent = match &args.fork {
        Some(run) => Some((run.as_str(), RunFolder::parent(&args.runs, run)?)),
        None => None,
    };
    if let Some((_, saved)) = &parent {
        warn_of_rejected(&saved.rejected, &Console::detect());
    }
    let loaded = match &parent {
        Some((run, SavedRun { config, .. })) => {
            load_stored_pretrain(config, &format!("the config of {run}"), &args.sets)?
        }
        None => load_pretrain(&args.config, &args.sets)?,
    };
    if args.print_config {
        print_result(&loaded.resolved);
        return Ok(Exit::Done);
    }
    let device = args.device.open_for(&loaded.plan)?;
    let default = || match &args.fork {
        Some(run) => default_name(&args.runs, Path::new(&format!("{run}-fork.toml"))),
        None => default_name(&args.runs, &args.config),
    };
    let name = args.name.clone().unwrap_or_else(default);
    let folder = RunFolder::create(&args.runs, &name, &loaded.resolved)?;
    log.open(&folder.file("run.log"))?;
    let start = parent.as_ref().map_or(Start::New, |(run, saved)| Start::Fork { saved, run });
    let outcome = train(&device, &loaded, &folder, start, stop);
    if outcome.is_err() {
        // The run's own error is reported, whatever becomes of its folder.
        drop(folder.give_back());
    }
    outcome
}

fn train(
    device: &candle_core::Device,
    loaded: &LoadedPretrain,
    folder: &RunFolder,
    start: Start<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<Exit> {
    let mut console = Console::detect();
    console.report(&format!("run    {}  seed {}", folder.path().display(), loaded.plan.seed.0));
    let components = components(loaded, device)?;
    let is_stopping = || stop.load(Ordering::Relaxed);
    let outcome = {
        let mut observe = watch(&mut console, &is_stopping);
        let control = Control { stop, observe: &mut observe };
        moco_pipeline::run_on_big_stack("trainer", || {
            pretrain(&loaded.plan, components, folder, start, control)
        })?
    };
    console.finish();
    let print = |summary| {
        let (table, path) = (summary_table(summary), folder.path().display());
        log_result(&table);
        print_result(&format!("\nrun folder: {path}"));
    };
    match outcome? {
        Outcome::Finished(summary) => {
            print(&summary);
            Ok(Exit::Done)
        }
        Outcome::PartlyMeasured { summary, error } => {
            print(&summary);
            Err(anyhow::Error::new(error).context(
                "training is finished and saved, but part of the evaluation failed; --resume tries \
                 again only what is missing",
            ))
        }
        Outcome::Stopped { global_step } => {
            let resume = folder.resume_arguments();
            console.report(&format!(
                "saved step {global_step}; continue: cargo xtask pretrain {resume}"
            ));
            Ok(Exit::Saved)
        }
    }
}
