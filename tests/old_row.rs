//! A program that measures the run of revision e2aaee0, as that revision did.

use std::process::Command;

use crate::old_run;

/// Runs `program` on the run with these arguments, and compares the number in its first row with `expected`
/// percent, which the run's `summary.json` holds.
#[track_caller]
pub(crate) fn check_measured(program: &str, arguments: &[&str], expected: f64) {
    let root = tempfile::tempdir().unwrap();
    old_run::old_run(root.path(), 3);
    let mut command = Command::new(program);
    command.current_dir(root.path()).arg("runs/old").args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let row: Vec<&str> = stdout.lines().nth(1).unwrap().split_whitespace().collect();
    let got: f64 = row[row.len() - 2].parse().unwrap();
    // With another instruction set, one of the 32 images may be on the edge; two decimals are printed.
    let tolerance = if old_run::has_the_same_bits() { 0.006 } else { 100.0 / 32.0 + 0.006 };
    assert!((got - expected).abs() < tolerance, "{got} instead of {expected}");
    assert_eq!(row[0], "3");
}
