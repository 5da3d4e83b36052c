//! The binary gives the number that the run itself measured at its end.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/old_row.rs"]
mod old_row;
#[path = "../../../tests/old_run.rs"]
mod old_run;
#[path = "../../../tests/small_run.rs"]
mod small_run;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use moco_checkpoint::CheckpointDir;

/// The run's checkpoint below `root`, as if a GPU had trained it in bf16.
fn write_as_of_bf16(root: &Path) {
    let saved = moco_train::SavedRun::load(&root.join("runs/small")).unwrap();
    let of_bf16 = saved.config.replace("\nprecision = \"f32\"", "\nprecision = \"bf16\"");
    assert_ne!(of_bf16, saved.config);
    let metadata = BTreeMap::from([("config".to_owned(), of_bf16)]);
    let folder = CheckpointDir::open(root.join("of-bf16"), 1).unwrap();
    folder.save(saved.global_step, &saved.tensors, &metadata).unwrap();
}

#[test]
fn a_run_is_measured_again() {
    let root = tempfile::tempdir().unwrap();
    let summary = small_run::small_run(root.path(), &["encoder.width=0.0625"]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knn"));
        command.current_dir(root.path()).args(arguments).output().unwrap()
    };
    let checkpoint = format!("runs/small/{}", summary.final_checkpoint);
    write_as_of_bf16(root.path());
    for arguments in [
        &["runs/small"][..],
        &[checkpoint.as_str()],
        &["of-bf16"],
        &["runs/small", "--activations", "as_trained"],
    ] {
        let output = run(&[arguments, &["-k", "7", "-k", "1"]].concat());
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected = format!("{:.2} %", summary.knn.trained.unwrap());
        let row = stdout.lines().nth(1).unwrap();
        assert!(row.contains(&expected) && row.contains(" 7 "), "{row} instead of {expected}");
        assert_eq!(stdout.lines().count(), 3, "{stdout}");
    }
    let output = run(&["runs/nowhere"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("runs/nowhere"));
    let output = run(&["of-bf16", "--activations", "as_trained"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: --activations as_trained is bf16 for this run, which the CPU does not have; \
                    add --device cuda:N, or take --activations f32\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

/// A policy from the command line for a run whose config has none.
#[test]
fn bad_images_are_left_out_if_asked_to() {
    let root = tempfile::tempdir().unwrap();
    small_run::small_run(root.path(), &["encoder.width=0.0625", "data.verify=sizes"]);
    let shard = root.path().join("data/test-000000.tar");
    let mut bytes = std::fs::read(&shard).unwrap();
    // The first image, after its header, no longer starts like a JPEG.
    bytes[512..520].fill(0);
    std::fs::write(&shard, bytes).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knn"));
        let output = command.current_dir(root.path()).args(arguments).output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), stdout, stderr)
    };
    let (code, _, stderr) = run(&["runs/small", "-k", "7"]);
    assert_eq!(code, Some(3), "{stderr}");
    let expected = "error: an image cannot be used; repair or remove it, or leave out up to N such images of \
                    each split by --skip-bad N\n  cause: ";
    assert!(stderr.contains(expected) && stderr.contains("test-000000.tar/"), "{stderr}");
    let (code, stdout, stderr) = run(&["runs/small", "-k", "7", "--skip-bad", "1"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("skipped: image test-000000.tar/000000"), "{stderr}");
    assert!(stderr.contains("\n160 training images\n"), "{stderr}");
    assert!(stderr.ends_with("\n79 test images, 1 skipped\n"), "{stderr}");
    let row: Vec<&str> = stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["4", "7", "0.1", "79"], "{stdout}");
    let (code, _, stderr) = run(&["runs/small", "-k", "7", "--skip-bad", "0"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("error: too many images cannot be used; give a larger --skip-bad N\n"));
}

/// The binary measures a run of an older revision as that revision did.
#[test]
fn a_run_without_a_format_is_measured() {
    old_row::check_measured(env!("CARGO_BIN_EXE_knn"), &["-k", "5"], 12.5);
}

/// The run's config names the network: a vision transformer is built from it, and no ResNet.
#[test]
fn a_vision_transformer_is_measured_again() {
    let root = tempfile::tempdir().unwrap();
    let vit = [
        "encoder.arch=vit",
        "encoder.patch_size=8",
        "encoder.embed_dim=24",
        "encoder.depth=2",
        "encoder.n_heads=3",
    ];
    let summary = small_run::small_run(root.path(), &vit);
    let mut command = Command::new(env!("CARGO_BIN_EXE_knn"));
    let output = command.current_dir(root.path()).args(["runs/small", "-k", "7"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let expected = format!("{:.2} %", summary.knn.trained.unwrap());
    let row = stdout.lines().nth(1).unwrap();
    assert!(row.contains(&expected), "{row} instead of {expected}");
}
