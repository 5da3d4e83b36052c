//! A folder of checkpoints: saving so that no crash loses a committed one, and finding the newest that
//! is whole.
//!
//! A save is: write a temporary file in the folder, sync it, rename it, sync the folder, and only then
//! delete old checkpoints. The rename is the commit. Without the first sync a power loss can leave the
//! new name on an empty file; without the second, the new name can vanish while the old checkpoints are
//! already deleted.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::View;

use crate::error::{CheckpointError, Rejected};
use crate::format::{self, Checkpoint};
use crate::fs::{Fs, SystemFs};

const HINT: &str = "free some space or lower checkpoint.keep";

/// A run's checkpoints, opened for writing.
#[derive(Debug)]
pub struct CheckpointDir(Dir<SystemFs>);

/// The result of [`newest_valid`].
#[derive(Debug)]
pub struct Newest {
    /// The newest checkpoint that verifies.
    pub checkpoint: Checkpoint,
    /// Its file.
    pub path: PathBuf,
    /// Newer ones that do not, newest first; worth a warning.
    pub rejected: Vec<Rejected>,
}

impl CheckpointDir {
    /// Creates the folder if need be and deletes what a killed save left in it (`.tmp-STEP-PID`), nothing
    /// else. `keep` is the number of checkpoints that outlive a save; the newest always does.
    ///
    /// The caller must be the folder's only writer; readers use [`newest_valid`].
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the folder cannot be created, read or cleaned.
    pub fn open(folder: impl Into<PathBuf>, keep: usize) -> Result<Self, CheckpointError> {
        Ok(Self(Dir::open(SystemFs, folder.into(), keep)?))
    }

    /// Saves a checkpoint durably as `step-0000000123.safetensors` and deletes old ones; returns its path.
    ///
    /// A full disk costs the oldest checkpoint if two valid ones exist: otherwise `keep` files that just
    /// do not fit would make every later save fail.
    ///
    /// # Errors
    /// [`CheckpointError::Unsavable`] before anything is written; [`CheckpointError::DiskFull`] and
    /// [`CheckpointError::Io`], after which the earlier checkpoints are intact. If the error is about
    /// deleting an old checkpoint, the new one is durable.
    pub fn save<S: AsRef<str>, V: View>(
        &self,
        global_step: u64,
        tensors: impl IntoIterator<Item = (S, V)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<PathBuf, CheckpointError> {
        self.0.save(global_step, &format::serialize(global_step, tensors, metadata)?)
    }

    /// As the function [`newest_valid`].
    ///
    /// # Errors
    /// As the function.
    pub fn newest_valid(&self) -> Result<Newest, CheckpointError> {
        self.0.newest_valid()
    }

    /// Reads and verifies one checkpoint, whatever its folder and name.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], or what is wrong with the file.
    pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
        load(&SystemFs, path)
    }
}

/// Finds the checkpoint with the highest step that verifies; writes nothing.
///
/// # Errors
/// [`CheckpointError::NoneFound`] with the reasons, or [`CheckpointError::TooNew`] if a newer release
/// wrote the newest valid one: going back to an older one would throw its steps away.
pub fn newest_valid(folder: &Path) -> Result<Newest, CheckpointError> {
    Dir { fs: SystemFs, folder: folder.to_owned(), keep: 1 }.newest_valid()
}

/// Whether a folder of checkpoints is missing, empty, or holds only what killed saves left: then no save was
/// ever committed in it, and nothing is lost with it.
///
/// # Errors
/// [`CheckpointError::Io`] if the folder cannot be listed.
pub fn is_without_saves(folder: &Path) -> Result<bool, CheckpointError> {
    if !folder.exists() {
        return Ok(true);
    }
    let entries = std::fs::read_dir(folder).map_err(io_error("list", folder))?;
    for entry in entries {
        let name = entry.map_err(io_error("list", folder))?.file_name();
        if !name.to_str().is_some_and(is_leftover) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes what killed saves left in a folder (`.tmp-STEP-PID`), nothing else.
///
/// # Errors
/// [`CheckpointError::Io`] if the folder cannot be read or cleaned.
pub fn remove_leftovers(folder: &Path) -> Result<(), CheckpointError> {
    Dir { fs: SystemFs, folder: folder.to_owned(), keep: 1 }.remove_leftovers()
}

/// Writes a file such that a crash leaves its old content or its new one, and never a part of either: a
/// temporary file beside it is written, synced and renamed, and the folder is synced.
///
/// # Errors
/// [`CheckpointError::Io`]; the old content is intact unless the error is about syncing the folder.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    replace(&SystemFs, &folder.join(format!(".tmp-{name}")), path, bytes)?;
    SystemFs.sync_folder(folder).map_err(io_error("sync", folder))
}

/// Writes and syncs a temporary file and renames it to `path`; the folder has yet to be synced.
fn replace<F: Fs>(
    fs: &F,
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), CheckpointError> {
    let written = write_synced(fs, temporary, bytes).and_then(|()| {
        fs.rename(temporary, path).map_err(io_error("rename a temporary file to", path))
    });
    if written.is_err() {
        // The first failure is the one to report; what remains is deleted or overwritten later.
        drop(fs.remove(temporary));
    }
    written
}

fn write_synced<F: Fs>(fs: &F, path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = fs.create(path).map_err(io_error("create", path))?;
    fs.write(&mut file, bytes).map_err(io_error("write", path))?;
    fs.sync(&file).map_err(io_error("sync", path))
}

#[derive(Debug)]
pub(crate) struct Dir<F> {
    pub(crate) fs: F,
    folder: PathBuf,
    keep: usize,
}

impl<F: Fs> Dir<F> {
    pub(crate) fn open(fs: F, folder: PathBuf, keep: usize) -> Result<Self, CheckpointError> {
        fs.create_folder(&folder).map_err(io_error("create folder", &folder))?;
        let dir = Self { fs, folder, keep };
        dir.remove_leftovers()?;
        Ok(dir)
    }

    fn remove_leftovers(&self) -> Result<(), CheckpointError> {
        for name in self.names()?.iter().filter(|name| is_leftover(name)) {
            self.remove(&self.folder.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn save(&self, global_step: u64, bytes: &[u8]) -> Result<PathBuf, CheckpointError> {
        let path = self.folder.join(file_name(global_step));
        let mut result = self.write(global_step, &path, bytes);
        if is_full(&result) && self.make_room()? {
            result = self.write(global_step, &path, bytes);
        }
        match result {
            Err(CheckpointError::Io { source, .. }) if says_full(&source) => {
                let needed = bytes.len() as u64;
                Err(CheckpointError::DiskFull { path, needed, hint: HINT, source })
            }
            Err(other) => Err(other),
            Ok(()) => {
                tracing::debug!(bytes = bytes.len(), "saved {}", path.display());
                self.prune(global_step)?;
                Ok(path)
            }
        }
    }

    fn write(&self, global_step: u64, path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
        let temporary = self.folder.join(format!(".tmp-{global_step}-{}", std::process::id()));
        replace(&self.fs, &temporary, path, bytes)?;
        self.fs.sync_folder(&self.folder).map_err(io_error("sync", &self.folder))
    }

    /// Deletes the oldest of at least two valid checkpoints; false if there are fewer.
    fn make_room(&self) -> Result<bool, CheckpointError> {
        let steps = self.steps()?;
        let paths = steps.iter().map(|step| self.folder.join(file_name(*step)));
        let valid: Vec<PathBuf> = paths.filter(|path| load(&self.fs, path).is_ok()).collect();
        match valid.as_slice() {
            [oldest, _, ..] => {
                tracing::warn!("the disk is full: deleting {} to save another", oldest.display());
                self.remove(oldest).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Deletes the oldest checkpoints up to `saved`, which stays. Later steps are not touched: they belong
    /// to a run that was resumed from an earlier step because they did not verify.
    fn prune(&self, saved: u64) -> Result<(), CheckpointError> {
        let steps: Vec<u64> = self.steps()?.into_iter().filter(|step| *step <= saved).collect();
        let n_old = steps.len().saturating_sub(self.keep.max(1));
        for step in &steps[..n_old] {
            let path = self.folder.join(file_name(*step));
            tracing::debug!("deleting {}, an older one", path.display());
            self.remove(&path)?;
        }
        Ok(())
    }

    pub(crate) fn newest_valid(&self) -> Result<Newest, CheckpointError> {
        let mut rejected = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            let path = self.folder.join(file_name(step));
            let loaded =
                load(&self.fs, &path).and_then(|checkpoint| expect_step(checkpoint, step, &path));
            match loaded {
                Ok(checkpoint) => return Ok(Newest { checkpoint, path, rejected }),
                Err(reason @ CheckpointError::TooNew { .. }) => return Err(reason),
                Err(reason) => rejected.push(Rejected { path, reason }),
            }
        }
        Err(CheckpointError::NoneFound { folder: self.folder.clone(), rejected })
    }

    /// The steps for which there is a file, ascending.
    fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut steps: Vec<u64> = self.names()?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        self.fs.list(&self.folder).map_err(io_error("list", &self.folder))
    }

    fn remove(&self, path: &Path) -> Result<(), CheckpointError> {
        self.fs.remove(path).map_err(io_error("delete", path))
    }
}

fn load<F: Fs>(fs: &F, path: &Path) -> Result<Checkpoint, CheckpointError> {
    format::parse(path, fs.read(path).map_err(io_error("read", path))?)
}

/// A file that was renamed would continue a run at a step that it has not reached, or fall out of the order.
fn expect_step(
    checkpoint: Checkpoint,
    in_name: u64,
    path: &Path,
) -> Result<Checkpoint, CheckpointError> {
    let inside = checkpoint.global_step;
    if inside == in_name {
        return Ok(checkpoint);
    }
    Err(CheckpointError::OtherStep { path: path.to_owned(), inside, name: file_name(inside) })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    move |source| CheckpointError::Io { action, path: path.to_owned(), source }
}

fn is_full(result: &Result<(), CheckpointError>) -> bool {
    matches!(result, Err(CheckpointError::Io { source, .. }) if says_full(source))
}

fn says_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn file_name(global_step: u64) -> String {
    format!("step-{global_step:010}.safetensors")
}

fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()?;
    (file_name(step) == name).then_some(step)
}

fn is_leftover(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = name.strip_prefix(".tmp-").and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(step, pid)| is_number(step) && is_number(pid))
}
