//! Opens a run that stopped: what its checkpoint says, what its folder says, and what the arguments allow.

use moco_cli::Console;
use moco_config::{
    LoadedPretrain, StoredConfig, check_resume, compare_stored, load_stored_pretrain,
};
use moco_telemetry::RunLog;
use moco_train::{Acceptance, Difference, FoundId, Length, Resume, RunFolder, TrainError};

use crate::args::Args;

/// A run that may continue.
pub(crate) struct Opened {
    pub(crate) resume: Resume,
    /// The plan of this session.
    pub(crate) loaded: LoadedPretrain,
    /// The length until now, if it is extended.
    pub(crate) extended_from: Option<Length>,
}

/// The run `name`, as its checkpoint has it; what differs in its folder is restored, accepted or an error.
pub(crate) fn open(args: &Args, name: &str, log: &RunLog) -> anyhow::Result<Opened> {
    let mut resume = RunFolder::resume(&args.runs, name)?;
    let config = resume.folder.config().to_owned();
    let file = resume.folder.file("config.toml").display().to_string();
    let stored = compare_stored(resume.config_file.as_deref(), &config)?;
    let accepted = accepted(args, &resume, &stored)?;
    let run = load_stored_pretrain(&config, &file, &[])?;
    let extended_from = args.extend.map(|_| run.plan.length);
    let run = match args.extend {
        Some(steps) => load_stored_pretrain(&config, &file, &[format!("run.steps={steps}")])?,
        None => run,
    };
    let loaded = load_stored_pretrain(&run.resolved, &file, &args.sets)?;
    check_resume(name, &run.resolved, &loaded.resolved)?;
    log.open(&resume.folder.file("run.log"))?;
    restore(&resume, &stored, &accepted, &Console::detect())?;
    if extended_from.is_some() {
        resume.folder.set_config(run.resolved);
    }
    Ok(Opened { resume, loaded, extended_from })
}

/// The differences, all of which the arguments accept.
fn accepted(
    args: &Args,
    resume: &Resume,
    stored: &StoredConfig,
) -> Result<Vec<Difference>, TrainError> {
    let is_accepted = |one: &Difference| match one.acceptance {
        Acceptance::ForeignCheckpoint => args.accept_foreign_checkpoint,
        Acceptance::RestoreConfig => args.restore_config,
        Acceptance::ChangedData => args.accept_changed_data,
    };
    let all = differences(args, resume, stored);
    let (accepted, differences): (Vec<_>, Vec<_>) = all.into_iter().partition(is_accepted);
    if differences.is_empty() {
        return Ok(accepted);
    }
    let (run, checkpoint) = (resume.folder.path().to_owned(), checkpoint_name(resume));
    Err(TrainError::Disagree { run, checkpoint, differences })
}

fn checkpoint_name(resume: &Resume) -> String {
    resume.newest.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes again what is lost in the folder, and reports that and what was accepted.
fn restore(
    resume: &Resume,
    stored: &StoredConfig,
    accepted: &[Difference],
    console: &Console,
) -> Result<(), TrainError> {
    for difference in accepted {
        console.warn(&format!("accepted: {difference}"));
    }
    let is_replaced = accepted.iter().any(|one| one.acceptance == Acceptance::RestoreConfig);
    let reason = match stored {
        StoredConfig::Missing => Some("missing, or no text"),
        StoredConfig::Torn => Some("cut off or damaged"),
        StoredConfig::Edited(_) if is_replaced => Some("another one"),
        StoredConfig::Same | StoredConfig::Edited(_) => None,
    };
    if let Some(reason) = reason {
        resume.folder.write_config()?;
        let file = resume.folder.file("config.toml");
        let checkpoint = checkpoint_name(resume);
        console.report(&format!(
            "config {} was {reason}; it was restored from {checkpoint}",
            file.display()
        ));
    }
    if let Some(line) = id_line(resume) {
        console.report(&line);
    }
    Ok(())
}

fn id_line(resume: &Resume) -> Option<String> {
    let id = resume.folder.id();
    match resume.found_id {
        FoundId::Same | FoundId::Foreign(_) => None,
        FoundId::OnlyInFolder => {
            Some(format!("run id {id}; the checkpoint is from before runs had one"))
        }
        FoundId::OnlyInCheckpoint => {
            Some(format!("run id {id}, restored from the checkpoint; the file was missing"))
        }
        FoundId::New => Some(format!("run id {id}, new: the run is from before runs had one")),
    }
}

/// All that the run's folder and its checkpoint do not agree on. An extension replaces the length.
fn differences(args: &Args, resume: &Resume, stored: &StoredConfig) -> Vec<Difference> {
    let mut differences = Vec::new();
    if let FoundId::Foreign(other) = &resume.found_id {
        differences.push(Difference {
            key: "run id".to_owned(),
            of_run: resume.folder.id().to_string(),
            of_checkpoint: other.to_string(),
            acceptance: Acceptance::ForeignCheckpoint,
        });
    }
    let StoredConfig::Edited(changes) = stored else { return differences };
    let is_length = |key: &str| ["run.steps", "run.epochs"].contains(&key);
    for change in changes.iter().filter(|one| args.extend.is_none() || !is_length(&one.key)) {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        differences.push(Difference {
            key: change.key.clone(),
            of_run: value(&change.new),
            of_checkpoint: value(&change.old),
            acceptance: Acceptance::RestoreConfig,
        });
    }
    differences
}
