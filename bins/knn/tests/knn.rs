//! The binary gives the number that the run itself measured at its end.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/small_run.rs"]
mod small_run;

use std::process::Command;

#[test]
fn a_run_is_measured_again() {
    let root = tempfile::tempdir().unwrap();
    let summary = small_run::small_run(root.path());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knn"));
        command.current_dir(root.path()).args(arguments).output().unwrap()
    };
    let checkpoint = format!("runs/small/{}", summary.final_checkpoint);
    for path in ["runs/small", &checkpoint] {
        let output = run(&[path, "-k", "7", "-k", "1"]);
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
}
