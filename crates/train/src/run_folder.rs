//! The folder of a run: `runs/NAME/`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use moco_checkpoint::{
    CheckpointDir, is_without_saves, newest_valid, remove_leftovers, write_durably,
};
pub use moco_checkpoint::{Newest, Rejected};

use crate::error::{OnFile, TrainError};
use crate::identity::RunId;
use crate::run_state::RunState;
use crate::snapshot::SavedRun;
use crate::summary::Summary;

const CONFIG: &str = "config.toml";
const ID: &str = "run_id";
const CHECKPOINTS: &str = "checkpoints";
const METRICS: &str = "metrics.jsonl";
const SUMMARY: &str = "summary.json";
const LOCK: &str = ".lock";
/// The list of images that could not be used.
pub(crate) const BAD_SAMPLES: &str = "bad_samples.txt";

/// A run's folder, locked while it lives: `config.toml` (resolved), `run_id`, `metrics.jsonl`, `run.log`,
/// `bad_samples.txt`, `checkpoints/`, `summary.json`.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    config: String,
    id: RunId,
    /// Held for its lock.
    _lock: File,
}

/// A run to resume.
#[derive(Debug)]
pub struct Resume {
    /// Its folder, with the config of the checkpoint.
    pub folder: RunFolder,
    /// The checkpoint at which it stopped.
    pub newest: Newest,
    /// The text of `config.toml`; `None` if there is none, or it is no text.
    pub config_file: Option<String>,
    /// What the folder and the checkpoint say about the run's id.
    pub found_id: FoundId,
}

/// The ids of a run in its folder and in its checkpoint. The run's own is the folder's, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundId {
    /// The same in both.
    Same,
    /// The checkpoint is from before runs had one.
    OnlyInFolder,
    /// The folder's was missing and was written again.
    OnlyInCheckpoint,
    /// In neither: the run is from before, and got one.
    New,
    /// The checkpoint is this other run's.
    Foreign(RunId),
}

impl RunFolder {
    /// Makes the folder of a new run and writes its config and its id. The folder of a run that ended before
    /// its first checkpoint, say for a shard that was missing or a kill in the first save, holds nothing to
    /// lose and is used again.
    ///
    /// # Errors
    /// If the run exists, or the folder cannot be written.
    pub fn create(root: &Path, name: &str, config: &str) -> Result<Self, TrainError> {
        let path = root.join(name);
        if path.exists() && !is_stillborn(&path)? {
            return Err(TrainError::RunExists { path, name: name.to_owned() });
        }
        std::fs::create_dir_all(&path).on_file("create the run folder", &path)?;
        let lock = lock(&path)?;
        let metrics = path.join(METRICS);
        if metrics.exists() {
            std::fs::remove_file(&metrics).on_file("remove", &metrics)?;
        }
        let folder = Self { path, config: config.to_owned(), id: RunId::random()?, _lock: lock };
        folder.write_id()?;
        folder.write_config()?;
        Ok(folder)
    }

    /// Opens a run to resume it from its newest valid checkpoint, which says what the run is.
    ///
    /// # Errors
    /// If there is no such run, another process writes it, or it has no valid checkpoint.
    pub fn resume(root: &Path, name: &str) -> Result<Resume, TrainError> {
        let path = existing(root, name)?;
        let lock = lock(&path)?;
        let checkpoints = path.join(CHECKPOINTS);
        if is_without_saves(&checkpoints)? {
            return Err(TrainError::NothingSaved { folder: checkpoints, name: name.to_owned() });
        }
        let newest = newest_valid(&checkpoints)?;
        let RunState { config, origin, .. } = RunState::of(&newest)?;
        let config_file = read_text(&path.join(CONFIG))?;
        let of_folder = read_text(&path.join(ID))?.and_then(|text| RunId::parse(text.trim_end()));
        let (id, found_id) = match (of_folder, origin.run_id) {
            (Some(id), Some(other)) if id == other => (id, FoundId::Same),
            (Some(id), Some(other)) => (id, FoundId::Foreign(other)),
            (Some(id), None) => (id, FoundId::OnlyInFolder),
            (None, Some(id)) => (id, FoundId::OnlyInCheckpoint),
            (None, None) => (RunId::random()?, FoundId::New),
        };
        let folder = Self { path, config, id, _lock: lock };
        if matches!(found_id, FoundId::OnlyInCheckpoint | FoundId::New) {
            folder.write_id()?;
        }
        Ok(Resume { folder, newest, config_file, found_id })
    }

    /// The newest valid checkpoint of a run, for another run to begin with.
    ///
    /// # Errors
    /// If there is no such run, or it has no valid checkpoint.
    pub fn parent(root: &Path, name: &str) -> Result<SavedRun, TrainError> {
        let path = existing(root, name)?;
        let folder = path.join(CHECKPOINTS);
        if is_without_saves(&folder)? {
            return Err(TrainError::NothingSaved { folder, name: name.to_owned() });
        }
        SavedRun::load(&path)
    }

    /// Removes the files of a new run that failed before its first line of metrics and its first
    /// checkpoint, and the folder with them if it holds nothing else; its name is free again. Any other run
    /// stays as it is.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn give_back(self) -> Result<(), TrainError> {
        let has_metrics = std::fs::metadata(self.file(METRICS)).is_ok_and(|file| file.len() > 0);
        if has_metrics || !is_stillborn(&self.path)? {
            return Ok(());
        }
        if self.file(CHECKPOINTS).exists() {
            remove_leftovers(&self.file(CHECKPOINTS))?;
        }
        for name in [METRICS, "run.log", BAD_SAMPLES, CONFIG, ID, LOCK] {
            let file = self.file(name);
            if file.exists() {
                std::fs::remove_file(&file).on_file("remove", &file)?;
            }
        }
        for folder in [self.file(CHECKPOINTS), self.path.clone()] {
            match std::fs::remove_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => break,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.on_file("remove", &folder)?,
            }
        }
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved config of the run, which goes into its checkpoints.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Gives the run another config, in memory; an extension writes it with the checkpoint that has it.
    pub fn set_config(&mut self, config: String) {
        self.config = config;
    }

    /// Writes `config.toml` durably.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self) -> Result<(), TrainError> {
        Ok(write_durably(&self.file(CONFIG), self.config.as_bytes())?)
    }

    fn write_id(&self) -> Result<(), TrainError> {
        Ok(write_durably(&self.file(ID), format!("{}\n", self.id).as_bytes())?)
    }

    /// Prepares an extension from a length: the summary of that length gets another name, and `config.toml` is
    /// taken away, so that a crash before the checkpoint has the new config restores the old one.
    pub(crate) fn retire(&self, from_steps: u64) -> Result<(), TrainError> {
        let summary = self.file(SUMMARY);
        if summary.exists() {
            let retired = self.file(&format!("summary-{from_steps}-steps.json"));
            std::fs::rename(&summary, &retired).on_file("rename the summary to", &retired)?;
        }
        let config = self.file(CONFIG);
        if config.exists() {
            std::fs::remove_file(&config).on_file("remove", &config)?;
        }
        File::open(&self.path).and_then(|folder| folder.sync_all()).on_file("sync", &self.path)
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The arguments of `pretrain` that continue the run.
    #[must_use]
    pub fn resume_arguments(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().display();
        match self.path.parent() {
            Some(runs) if runs != Path::new("runs") => {
                format!("--resume {name} --runs {}", runs.display())
            }
            _ => format!("--resume {name}"),
        }
    }

    pub(crate) fn checkpoints(&self, keep: usize) -> Result<CheckpointDir, TrainError> {
        Ok(CheckpointDir::open(self.path.join(CHECKPOINTS), keep)?)
    }

    /// The summary, if training ended after `global_step` steps; `None` if there is none of that step, or
    /// what is there does not read, so that all is measured again.
    pub(crate) fn summary(&self, global_step: u64) -> Result<Option<Summary>, TrainError> {
        let path = self.file(SUMMARY);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.on_file("read", &path)?,
        };
        let summary: Option<Summary> = serde_json::from_slice(&text).ok();
        Ok(summary.filter(|summary| summary.steps == global_step))
    }

    pub(crate) fn write_summary(&self, summary: &Summary) -> Result<(), TrainError> {
        let path = self.file(SUMMARY);
        let text = serde_json::to_string_pretty(summary).map_err(std::io::Error::from);
        Ok(write_durably(&path, (text.on_file("write", &path)? + "\n").as_bytes())?)
    }
}

/// Whether a folder is empty, or that of a run without a checkpoint: one that was killed while it was being made,
/// before its first save or within it.
fn is_stillborn(path: &Path) -> Result<bool, TrainError> {
    let mut entries = std::fs::read_dir(path).on_file("list", path)?;
    if entries.next().is_none() {
        return Ok(true);
    }
    Ok(path.join(LOCK).exists() && is_without_saves(&path.join(CHECKPOINTS))?)
}

fn is_run(path: &Path) -> bool {
    [CONFIG, CHECKPOINTS].iter().any(|name| path.join(name).exists())
}

/// The folder of a run.
fn existing(root: &Path, name: &str) -> Result<PathBuf, TrainError> {
    let path = root.join(name);
    if is_run(&path) {
        return Ok(path);
    }
    Err(TrainError::NoRun { path, known: names(root).join(", ") })
}

/// A file's text; `None` if there is no file, or it is not UTF-8.
fn read_text(path: &Path) -> Result<Option<String>, TrainError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(String::from_utf8(read.on_file("read", path)?).ok()),
    }
}

fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.on_file("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(source).on_file("lock", &path),
    }
}

/// Names of the runs in a folder, sorted.
fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let runs = entries.filter(|entry| is_run(&entry.path()));
    let mut names: Vec<String> =
        runs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_never_overwritten_and_never_written_twice() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(root.path(), "first", "seed = 1\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.file("config.toml")).unwrap(), "seed = 1\n");
        let message = RunFolder::create(root.path(), "first", "").unwrap_err().to_string();
        assert!(message.contains("in use by another process"), "{message}");
        std::fs::create_dir(folder.file("checkpoints")).unwrap();
        std::fs::write(folder.file("checkpoints/step-0000000001.safetensors"), "").unwrap();
        let message = RunFolder::create(root.path(), "first", "").unwrap_err().to_string();
        assert!(
            message.contains("exists already") && message.contains("--resume first"),
            "{message}"
        );
        let message = RunFolder::resume(root.path(), "first").unwrap_err().to_string();
        assert!(message.contains("in use by another process"), "{message}");
        drop(folder);
        let message = RunFolder::resume(root.path(), "first").unwrap_err().to_string();
        assert!(message.contains("no usable checkpoint in"), "{message}");
        std::fs::remove_dir_all(root.path().join("first/checkpoints")).unwrap();
        std::fs::write(root.path().join("first/metrics.jsonl"), "{}").unwrap();
        let folder = RunFolder::create(root.path(), "first", "seed = 2\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.file("config.toml")).unwrap(), "seed = 2\n");
        assert!(!folder.file("metrics.jsonl").exists(), "a run without a checkpoint starts again");
        let foreign = root.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        drop(RunFolder::create(root.path(), "foreign", "").unwrap());
        std::fs::remove_dir_all(&foreign).unwrap();
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("notes.txt"), "mine").unwrap();
        let message = RunFolder::create(root.path(), "foreign", "").unwrap_err().to_string();
        assert!(message.contains("exists already"), "{message}");
        let message = RunFolder::resume(root.path(), "frist").unwrap_err().to_string();
        assert!(message.contains("runs there are: first"), "{message}");
    }

    #[test]
    fn a_name_is_given_back_unless_something_would_be_lost() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        for (name, content, is_kept) in [
            ("run.log", "plan", false),
            ("metrics.jsonl", "", false),
            ("checkpoints/", "", false),
            ("checkpoints/.tmp-5-4711", "half", false),
            ("metrics.jsonl", "{}", true),
            ("checkpoints/step-0000000001.safetensors", "", true),
            ("notes.txt", "mine", true),
        ] {
            let folder = RunFolder::create(root.path(), "x", "").unwrap();
            let file = folder.file(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            if !name.ends_with('/') {
                std::fs::write(&file, content).unwrap();
            } else {
                std::fs::create_dir_all(&file).unwrap();
            }
            folder.give_back().unwrap();
            assert_eq!((path.exists(), file.exists()), (is_kept, is_kept), "{name}");
            if is_kept {
                std::fs::remove_dir_all(&path).unwrap();
            }
        }
    }

    #[test]
    fn a_name_is_free_again_after_a_kill_at_any_moment_before_the_first_save() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let leftover = "checkpoints/.tmp-5-4711";
        let stages: [&[&str]; 5] = [
            &[],
            &[LOCK],
            &[LOCK, ".tmp-run_id"],
            &[LOCK, ID, CONFIG],
            &[LOCK, ID, CONFIG, leftover],
        ];
        for files in stages {
            for file in files {
                std::fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
                std::fs::write(path.join(file), "half").unwrap();
            }
            std::fs::create_dir_all(&path).unwrap();
            let folder = RunFolder::create(root.path(), "x", "seed = 2\n").unwrap();
            assert_eq!(std::fs::read_to_string(folder.file(CONFIG)).unwrap(), "seed = 2\n");
            let id = std::fs::read_to_string(folder.file(ID)).unwrap();
            assert_eq!(id, format!("{}\n", folder.id()), "{files:?}");
            drop(folder);
            let message = RunFolder::resume(root.path(), "x").unwrap_err().to_string();
            let expected = format!(
                "no usable checkpoint in {}: the run ended before its first was saved; \
                 start it again with --name x",
                path.join(CHECKPOINTS).display()
            );
            assert_eq!(message, expected);
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
}
