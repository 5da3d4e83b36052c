//! The binary gives the number that the run itself measured at its end.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

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
    let root = tempfile::tempdir().unwrap();
    old_run::old_run(root.path(), 3);
    // In its `summary.json`, of the trained encoder.
    let expected: f64 = 9.375;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lincls"));
    let output = command.current_dir(root.path()).args(["runs/old"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let row: Vec<&str> = stdout.lines().nth(1).unwrap().split_whitespace().collect();
    let got: f64 = row[row.len() - 2].parse().unwrap();
    // With another instruction set, one of the 32 images may be on the edge; two decimals are printed.
    let tolerance = if old_run::has_the_same_bits() { 0.006 } else { 100.0 / 32.0 + 0.006 };
    assert!((got - expected).abs() < tolerance, "{got} instead of {expected}");
    assert_eq!(row[0], "3");
}
