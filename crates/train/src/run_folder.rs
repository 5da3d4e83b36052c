//! The folder of a run: `runs/NAME/`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use moco_checkpoint::Newest;
use moco_checkpoint::{CheckpointDir, CheckpointError, newest_valid};

use crate::error::{OnFile, TrainError};
use crate::summary::Summary;

/// The list of images that could not be used.
pub(crate) const BAD_SAMPLES: &str = "bad_samples.txt";

/// A run's folder, locked while it lives: `config.toml` (resolved), `metrics.jsonl`, `run.log`,
/// `bad_samples.txt`, `checkpoints/`, `summary.json`.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    config: String,
    /// Held for its lock.
    _lock: File,
}

/// A run to resume.
#[derive(Debug)]
pub struct Resume {
    /// Its folder.
    pub folder: RunFolder,
    /// The checkpoint at which it stopped.
    pub newest: Newest,
}

impl RunFolder {
    /// Makes the folder of a new run and writes its config. The folder of a run that ended before its
    /// first checkpoint, say for a shard that was missing, holds nothing to lose and is used again.
    ///
    /// # Errors
    /// If the run exists, or the folder cannot be written.
    pub fn create(root: &Path, name: &str, config: &str) -> Result<Self, TrainError> {
        let path = root.join(name);
        if path.exists() && !is_stillborn(&path) {
            return Err(TrainError::RunExists { path, name: name.to_owned() });
        }
        std::fs::create_dir_all(&path).on_file("create the run folder", &path)?;
        let lock = lock(&path)?;
        let metrics = path.join("metrics.jsonl");
        if metrics.exists() {
            std::fs::remove_file(&metrics).on_file("remove", &metrics)?;
        }
        let file = path.join("config.toml");
        std::fs::write(&file, config).on_file("write", &file)?;
        Ok(Self { path, config: config.to_owned(), _lock: lock })
    }

    /// Opens a run to resume it from its newest valid checkpoint.
    ///
    /// # Errors
    /// If there is no such run, another process writes it, or it has no valid checkpoint.
    pub fn resume(root: &Path, name: &str) -> Result<Resume, TrainError> {
        let path = root.join(name);
        if !path.join("config.toml").exists() {
            return Err(TrainError::NoRun { path, known: names(root).join(", ") });
        }
        let lock = lock(&path)?;
        let file = path.join("config.toml");
        let config = std::fs::read_to_string(&file).on_file("read", &file)?;
        let checkpoints = path.join("checkpoints");
        if !checkpoints.exists() {
            // It ended before its first checkpoint.
            let (folder, rejected) = (checkpoints, Vec::new());
            return Err(CheckpointError::NoneFound { folder, rejected }.into());
        }
        let newest = newest_valid(&checkpoints)?;
        Ok(Resume { folder: Self { path, config, _lock: lock }, newest })
    }

    /// Removes the files of a new run that failed before its first line of metrics and its first
    /// checkpoint, and the folder with them if it holds nothing else; its name is free again. Any other run
    /// stays as it is.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn give_back(self) -> Result<(), TrainError> {
        let has_metrics =
            std::fs::metadata(self.file("metrics.jsonl")).is_ok_and(|file| file.len() > 0);
        if has_metrics || !is_stillborn(&self.path) {
            return Ok(());
        }
        for name in ["metrics.jsonl", "run.log", BAD_SAMPLES, "config.toml", ".lock"] {
            let file = self.file(name);
            if file.exists() {
                std::fs::remove_file(&file).on_file("remove", &file)?;
            }
        }
        for folder in [self.file("checkpoints"), self.path.clone()] {
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

    /// The resolved config that the run was started with.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.config
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The arguments that continue the run.
    pub(crate) fn resume_arguments(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().display();
        match self.path.parent() {
            Some(runs) if runs != Path::new("runs") => {
                format!("--resume {name} --runs {}", runs.display())
            }
            _ => format!("--resume {name}"),
        }
    }

    pub(crate) fn checkpoints(&self, keep: usize) -> Result<CheckpointDir, TrainError> {
        Ok(CheckpointDir::open(self.path.join("checkpoints"), keep)?)
    }

    pub(crate) fn write_summary(&self, summary: &Summary) -> Result<(), TrainError> {
        let path = self.file("summary.json");
        let text = serde_json::to_string_pretty(summary).map_err(std::io::Error::from);
        std::fs::write(&path, text.on_file("write", &path)? + "\n").on_file("write", &path)
    }
}

/// Whether a folder is that of a run without a checkpoint.
fn is_stillborn(path: &Path) -> bool {
    let holds_files =
        |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    let is_run = path.join("config.toml").exists() && path.join(".lock").exists();
    is_run && !holds_files(&path.join("checkpoints"))
}

fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join(".lock");
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
    let runs = entries.filter(|entry| entry.path().join("config.toml").exists());
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
        assert!(message.contains("no usable checkpoint"), "{message}");
        std::fs::remove_dir_all(root.path().join("first/checkpoints")).unwrap();
        std::fs::write(root.path().join("first/metrics.jsonl"), "{}").unwrap();
        let folder = RunFolder::create(root.path(), "first", "seed = 2\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.file("config.toml")).unwrap(), "seed = 2\n");
        assert!(!folder.file("metrics.jsonl").exists(), "a run without a checkpoint starts again");
        let foreign = root.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
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
}
