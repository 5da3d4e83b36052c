//! The binary gives the number that the run itself measured at its end.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/old_row.rs"]
mod old_row;
#[path = "../../../tests/old_run.rs"]
mod old_run;
#[path = "../../../tests/small_run.rs"]
mod small_run;

use std::process::Command;

#[test]
fn a_run_is_measured_again() {
    let root = tempfile::tempdir().unwrap();
    let summary = small_run::small_run(root.path(), &["encoder.width=0.0625"]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lincls"));
        let output = command.current_dir(root.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = format!("{:.2} %", summary.linear.trained.unwrap());
    assert!(run(&["runs/small"]).contains(&expected), "{} {expected}", run(&["runs/small"]));
    assert!(run(&["runs/small", "--epochs", "1"]).contains("     1    0.1"));
}

/// The binary measures a run of an older revision as that revision did.
#[test]
fn a_run_without_a_format_is_measured() {
    old_row::check_measured(env!("CARGO_BIN_EXE_lincls"), &[], 9.375);
}
