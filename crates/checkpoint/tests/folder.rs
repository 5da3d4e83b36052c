//! Checkpoints in real folders.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use moco_checkpoint::{
    CheckpointDir, CheckpointError, is_without_saves, newest_valid, remove_leftovers, write_durably,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// What every checkpoint begins with after the length of its header.
const PROLOGUE: &str = "{\"__metadata__\":{\"blake3\":\"";

fn save(dir: &CheckpointDir, step: u64) -> Result<std::path::PathBuf, CheckpointError> {
    let tensor = TensorView::new(Dtype::U8, vec![4], &[1, 2, 3, 4]).unwrap();
    dir.save(step, [("t", &tensor)], &BTreeMap::new())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_last_ones_are_kept_and_nothing_else_appears() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("runs/a/checkpoints");
    let dir = CheckpointDir::open(&folder, 2).unwrap();
    for step in [5, 100, 20_000_000_000] {
        save(&dir, step).unwrap();
    }
    let expected = ["step-0000000100.safetensors", "step-20000000000.safetensors"];
    assert_eq!(names(&folder), expected);
    assert_eq!(dir.newest_valid().unwrap().checkpoint.global_step, 20_000_000_000);
}

#[test]
fn keeping_none_still_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let dir = CheckpointDir::open(folder.path(), 0).unwrap();
    save(&dir, 1).unwrap();
    save(&dir, 2).unwrap();
    assert_eq!(names(folder.path()), ["step-0000000002.safetensors"]);
}

#[test]
fn opening_deletes_only_what_a_killed_save_left() {
    let folder = tempfile::tempdir().unwrap();
    let others = [".tmp-3", ".tmp-3-x", ".tmp-weights", "notes.txt", "step-3.safetensors"];
    for name in [".tmp-3-4711", ".tmp-12-1"].iter().chain(&others) {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    CheckpointDir::open(folder.path(), 2).unwrap();
    assert_eq!(names(folder.path()), others);
}

#[test]
fn a_reader_leaves_a_running_save_alone() {
    let folder = tempfile::tempdir().unwrap();
    save(&CheckpointDir::open(folder.path(), 2).unwrap(), 3).unwrap();
    fs::write(folder.path().join(".tmp-6-4711"), "half").unwrap();
    assert_eq!(newest_valid(folder.path()).unwrap().checkpoint.global_step, 3);
    assert_eq!(names(folder.path()), [".tmp-6-4711", "step-0000000003.safetensors"]);
}

#[test]
fn damaged_checkpoints_are_named_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = CheckpointDir::open(folder.path(), 9).unwrap();
    let paths = [1, 2, 3].map(|step| save(&dir, step).unwrap());
    let mut bytes = fs::read(&paths[2]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&paths[2], &bytes).unwrap();
    fs::write(&paths[1], "").unwrap();

    let newest = dir.newest_valid().unwrap();
    assert_eq!((newest.checkpoint.global_step, &newest.path), (1, &paths[0]));
    let reasons: Vec<String> = newest.rejected.iter().map(|one| one.reason.to_string()).collect();
    assert_eq!(reasons.len(), 2);
    // The digits stand where the header begins; those of the changed bytes are computed with zeros there.
    let digits = &bytes[8 + PROLOGUE.len()..][..64];
    let expected = String::from_utf8(digits.to_vec()).unwrap();
    let mut zeroed = bytes.clone();
    zeroed[8 + PROLOGUE.len()..][..64].fill(b'0');
    let got = blake3::hash(&zeroed);
    let damaged = paths[2].display();
    assert_eq!(reasons[0], format!("{damaged} is damaged: expected blake3 {expected}, got {got}"));
    let empty = paths[1].display();
    assert_eq!(
        reasons[1],
        format!(
            "{empty} is not a checkpoint of this program: expected a safetensors header that begins with metadata \
             `blake3`"
        )
    );

    fs::write(&paths[0], "").unwrap();
    let error = dir.newest_valid().unwrap_err().to_string();
    let start = format!("no usable checkpoint in {}; ", folder.path().display());
    assert!(error.starts_with(&start) && error.matches("step-").count() == 3, "{error}");
}

#[test]
fn a_resume_from_an_older_step_keeps_what_it_saves() {
    let folder = tempfile::tempdir().unwrap();
    let dir = CheckpointDir::open(folder.path(), 1).unwrap();
    let damaged = save(&dir, 200).unwrap();
    fs::write(&damaged, "x").unwrap();
    save(&dir, 110).unwrap();
    assert_eq!(dir.newest_valid().unwrap().checkpoint.global_step, 110);
    save(&dir, 200).unwrap();
    assert_eq!(names(folder.path()), ["step-0000000200.safetensors"]);
}

#[test]
fn an_empty_folder_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = newest_valid(folder.path()).unwrap_err().to_string();
    assert_eq!(error, format!("no usable checkpoint in {}", folder.path().display()));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let folder = file.join("checkpoints");
    let error = CheckpointDir::open(&folder, 2).unwrap_err().to_string();
    assert_eq!(error, format!("cannot create folder {}", folder.display()));
}

/// A temporary file made by a library for secrets would be readable by its owner only.
#[cfg(unix)]
#[test]
fn a_checkpoint_has_the_mode_of_an_ordinary_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let dir = CheckpointDir::open(folder.path(), 2).unwrap();
    let path = save(&dir, 1).unwrap();
    let ordinary = folder.path().join("ordinary");
    fs::write(&ordinary, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&ordinary));
}

#[test]
fn a_step_that_is_not_that_of_the_name_is_reported_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let dir = CheckpointDir::open(folder.path(), 9).unwrap();
    let paths = [1, 2, 3].map(|step| save(&dir, step).unwrap());
    // The files of steps 2 and 3 are swapped.
    let aside = folder.path().join("aside");
    for (from, to) in [(&paths[1], &aside), (&paths[2], &paths[1]), (&aside, &paths[2])] {
        fs::rename(from, to).unwrap();
    }
    let newest = dir.newest_valid().unwrap();
    assert_eq!((newest.checkpoint.global_step, &newest.path), (1, &paths[0]));
    let reasons: Vec<String> = newest.rejected.iter().map(|one| one.reason.to_string()).collect();
    let message = |path: &Path, inside: u64| {
        format!(
            "{} holds step {inside}; if it belongs here, rename it to step-{inside:010}.safetensors",
            path.display()
        )
    };
    assert_eq!(reasons, [message(&paths[2], 2), message(&paths[1], 3)]);
}

#[test]
fn leftovers_are_no_saves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints");
    assert!(is_without_saves(&path).unwrap(), "there is no folder");
    fs::create_dir(&path).unwrap();
    assert!(is_without_saves(&path).unwrap());
    fs::write(path.join(".tmp-5-4711"), "half").unwrap();
    assert!(is_without_saves(&path).unwrap());
    for name in ["step-0000000005.safetensors", "notes.txt"] {
        fs::write(path.join(name), "").unwrap();
        assert!(!is_without_saves(&path).unwrap(), "{name}");
        remove_leftovers(&path).unwrap();
        assert_eq!(names(&path), [name]);
        fs::remove_file(path.join(name)).unwrap();
    }
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for text in ["a = 1\n", "b = 2\n"] {
        write_durably(&path, text.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(names(folder.path()), ["config.toml"]);
    }
    // The name of the temporary file is taken by a folder.
    let temporary = folder.path().join(".tmp-config.toml");
    fs::create_dir(&temporary).unwrap();
    let error = write_durably(&path, b"c").unwrap_err();
    assert_eq!(error.to_string(), format!("cannot create {}", temporary.display()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "b = 2\n");
}
