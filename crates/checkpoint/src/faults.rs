//! A file system that fails or dies on demand and forgets what was not synced, and the proof that no
//! committed checkpoint is ever lost on it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::dir::Dir;
use crate::error::CheckpointError;
use crate::format;
use crate::fs::Fs;

/// Contents as programs see them, and as they are on the disk.
#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    on_disk: Vec<u8>,
}

/// A change of the folder that is not on the disk yet.
#[derive(Clone)]
enum Change {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The call fails; for a write, after half of the bytes.
    Error(ErrorKind),
    /// As an error, and so do all later calls: the process is gone.
    Death,
}

#[derive(Clone, Copy, PartialEq)]
enum Skipped {
    Nothing,
    FileSync,
    FolderSync,
}

#[derive(Clone)]
struct Disk {
    inodes: Vec<Inode>,
    names_on_disk: BTreeMap<String, usize>,
    changes: Vec<Change>,
    capacity: usize,
    n_calls: usize,
    fault: Option<(usize, Fault)>,
    skipped: Skipped,
}

struct MemoryFs(Rc<RefCell<Disk>>);

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Remove(name) => drop(names.remove(name)),
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            inodes: Vec::new(),
            names_on_disk: BTreeMap::new(),
            changes: Vec::new(),
            capacity: usize::MAX,
            n_calls: 0,
            fault: None,
            skipped: Skipped::Nothing,
        }
    }
}

impl Disk {
    fn names(&self) -> BTreeMap<String, usize> {
        let mut names = self.names_on_disk.clone();
        self.changes.iter().for_each(|change| apply(&mut names, change));
        names
    }

    fn used(&self) -> usize {
        self.names().values().map(|inode| self.inodes[*inode].seen.len()).sum()
    }

    fn call(&mut self) -> io::Result<()> {
        self.n_calls += 1;
        match self.fault {
            Some((at, Fault::Error(kind))) if self.n_calls == at => Err(kind.into()),
            Some((at, Fault::Death)) if self.n_calls >= at => Err(ErrorKind::Other.into()),
            _ => Ok(()),
        }
    }

    /// The disk after a power loss: of the changes not synced, those in `kept` (a bit each) happened, and
    /// of a file not synced, the `eighths` (a bit each) were written; the others are zeros, or missing at
    /// the end.
    fn after_power_loss(mut self, kept: u32, eighths: u8) -> Self {
        for (i, change) in self.changes.iter().enumerate() {
            if kept & (1 << i) != 0 {
                apply(&mut self.names_on_disk, change);
            }
        }
        for inode in self.inodes.iter_mut().filter(|inode| inode.on_disk != inode.seen) {
            inode.on_disk.clear();
            for (i, eighth) in inode.seen.chunks(inode.seen.len().div_ceil(8)).enumerate() {
                if eighths & (1 << i) != 0 {
                    inode.on_disk.resize(i * inode.seen.len().div_ceil(8), 0);
                    inode.on_disk.extend(eighth);
                }
            }
        }
        for inode in &mut self.inodes {
            inode.seen.clone_from(&inode.on_disk);
        }
        Self { changes: Vec::new(), n_calls: 0, fault: None, ..self }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Fs for MemoryFs {
    type File = usize;

    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        self.0.borrow_mut().call()
    }

    fn list(&self, _folder: &Path) -> io::Result<Vec<String>> {
        self.0.borrow_mut().call()?;
        Ok(self.0.borrow().names().into_keys().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.borrow_mut().call()?;
        let disk = self.0.borrow();
        let names = disk.names();
        let inode = names.get(&name(path)).ok_or(ErrorKind::NotFound)?;
        Ok(disk.inodes[*inode].seen.clone())
    }

    fn create(&self, path: &Path) -> io::Result<usize> {
        let mut disk = self.0.borrow_mut();
        disk.call()?;
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.changes.push(Change::Link(name(path), inode));
        Ok(inode)
    }

    fn write(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        let result = disk.call();
        let room = disk.capacity - disk.used();
        let n_written = if result.is_err() { bytes.len() / 2 } else { bytes.len().min(room) };
        disk.inodes[*file].seen.extend(&bytes[..n_written]);
        if n_written < bytes.len() {
            result.and(Err(ErrorKind::StorageFull.into()))
        } else {
            result
        }
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.call()?;
        if disk.skipped != Skipped::FileSync {
            disk.inodes[*file].on_disk = disk.inodes[*file].seen.clone();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.call()?;
        disk.changes.push(Change::Rename(name(from), name(to)));
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.call()?;
        if disk.skipped != Skipped::FolderSync {
            disk.names_on_disk = disk.names();
            disk.changes.clear();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.call()?;
        let known = disk.names().contains_key(&name(path));
        disk.changes.push(Change::Remove(name(path)));
        if known { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }
}

type MemoryDir = Dir<MemoryFs>;

fn open(disk: Disk, keep: usize) -> MemoryDir {
    open_shared(&Rc::new(RefCell::new(disk)), keep).unwrap()
}

fn open_shared(disk: &Rc<RefCell<Disk>>, keep: usize) -> Result<MemoryDir, CheckpointError> {
    Dir::open(MemoryFs(Rc::clone(disk)), PathBuf::from("run"), keep)
}

fn image(step: u64) -> Vec<u8> {
    let data = [u8::try_from(step).unwrap(); 64];
    let tensor = TensorView::new(Dtype::U8, vec![64], &data).unwrap();
    format::serialize(step, [("t", tensor)], &BTreeMap::new()).unwrap()
}

fn save(dir: &MemoryDir, step: u64) -> Result<(), CheckpointError> {
    dir.save(step, &image(step)).map(drop)
}

fn disk_of(dir: &MemoryDir) -> Disk {
    dir.fs.0.borrow().clone()
}

/// The newest step and the names in the folder after a restart.
fn restart(disk: Disk) -> (u64, Vec<String>) {
    let dir = open(Disk { fault: None, ..disk }, 2);
    let newest = dir.newest_valid().map_or(0, |newest| newest.checkpoint.global_step);
    (newest, disk_of(&dir).names().into_keys().collect())
}

fn file_names(steps: &[u64]) -> Vec<String> {
    steps.iter().map(|step| format!("step-{step:010}.safetensors")).collect()
}

struct Outcome {
    /// The last step whose save succeeded; 0 if none.
    committed: u64,
    first_error: Option<CheckpointError>,
    disk: Disk,
}

/// Opens the folder and saves five times, continuing after errors as a training loop does.
fn run(disk: Disk, keep: usize) -> Outcome {
    let disk = Rc::new(RefCell::new(disk));
    let (mut committed, mut first_error) = (0, None);
    match open_shared(&disk, keep) {
        Err(error) => first_error = Some(error),
        Ok(dir) => {
            for step in [3, 6, 9, 12, 15] {
                match save(&dir, step) {
                    Ok(()) => committed = step,
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
        }
    }
    Outcome { committed, first_error, disk: disk.take() }
}

#[test]
fn whichever_call_fails_no_committed_checkpoint_is_lost() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::PermissionDenied] {
        for keep in [1, 2] {
            let mut n_failed = 0;
            loop {
                let fault = Some((n_failed + 1, Fault::Error(kind)));
                let outcome = run(Disk { fault, ..Disk::default() }, keep);
                if outcome.disk.n_calls <= n_failed {
                    break;
                }
                n_failed += 1;
                let (newest, names) = restart(outcome.disk);
                assert!(newest >= outcome.committed, "{kind:?} at call {n_failed}: {newest}");
                assert!(names.iter().all(|name| name.starts_with("step-")), "{names:?}");
                assert!(outcome.committed == 15 || n_failed <= 2 || newest >= 12, "{newest}");
            }
            // Opening takes 2 calls; each save create, write, sync, rename, sync, list and deletions.
            assert!(n_failed >= 2 + 5 * 6 + (5 - keep), "only {n_failed} calls were failed");
        }
    }
}

/// Kills the process at each call; then each subset of the unsynced changes, and of each unsynced file
/// each subset of its eighths, reaches the disk. Returns the number of power losses, or the first after
/// which a committed step was lost.
fn lose_power_everywhere(keep: usize, skipped: Skipped) -> Result<usize, String> {
    let mut n_losses = 0;
    for at in 1.. {
        let fault = Some((at, Fault::Death));
        let outcome = run(Disk { fault, skipped, ..Disk::default() }, keep);
        for kept in 0..1_u32 << outcome.disk.changes.len() {
            for eighths in 0..=u8::MAX {
                let survivor = outcome.disk.clone().after_power_loss(kept, eighths);
                let (newest, names) = restart(survivor);
                n_losses += 1;
                if newest < outcome.committed {
                    let committed = outcome.committed;
                    return Err(format!(
                        "step {committed} lost at call {at}: {kept:b}, {eighths:b}"
                    ));
                }
                assert!(names.iter().all(|name| name.starts_with("step-")), "{names:?}");
            }
        }
        if outcome.first_error.is_none() {
            break;
        }
    }
    Ok(n_losses)
}

#[test]
fn a_power_loss_at_any_call_loses_no_committed_checkpoint() {
    for keep in [1, 2] {
        let n_losses = lose_power_everywhere(keep, Skipped::Nothing).unwrap();
        assert!(n_losses > 10_000, "only {n_losses} power losses");
    }
}

#[test]
fn each_sync_is_needed() {
    for skipped in [Skipped::FileSync, Skipped::FolderSync] {
        let loss = lose_power_everywhere(1, skipped).unwrap_err();
        assert!(loss.starts_with("step 3 lost at call "), "{loss}");
    }
}

#[test]
fn a_full_disk_costs_the_oldest_checkpoint_and_never_stops_saving() {
    let capacity = 2 * image(3).len() + 10;
    let dir = open(Disk { capacity, ..Disk::default() }, 3);
    for step in [3, 6, 9, 12, 15] {
        save(&dir, step).unwrap();
    }
    assert_eq!(restart(disk_of(&dir)), (15, file_names(&[12, 15])));
}

#[test]
fn a_full_disk_never_costs_the_only_valid_checkpoint() {
    let size = image(3).len();
    let dir = open(Disk { capacity: 2 * size + 10, ..Disk::default() }, 3);
    save(&dir, 3).unwrap();
    save(&dir, 6).unwrap();
    // Two files, but one valid checkpoint.
    dir.fs.0.borrow_mut().inodes[1].seen[200] ^= 1;
    let error = save(&dir, 9).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no space for run/step-0000000009.safetensors: {size} bytes needed; \
             free some space or lower checkpoint.keep"
        )
    );
    assert_eq!(restart(disk_of(&dir)), (3, file_names(&[3, 6])));
    dir.fs.0.borrow_mut().capacity = 3 * size;
    save(&dir, 9).unwrap();
    assert_eq!(restart(disk_of(&dir)), (9, file_names(&[3, 6, 9])));
}

#[test]
fn a_quota_counts_as_a_full_disk() {
    let fault = Some((4, Fault::Error(ErrorKind::QuotaExceeded)));
    let outcome = run(Disk { fault, ..Disk::default() }, 1);
    assert!(matches!(outcome.first_error, Some(CheckpointError::DiskFull { .. })));
    assert_eq!(outcome.committed, 15);
}
