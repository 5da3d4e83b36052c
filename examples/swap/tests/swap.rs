//! The example trains and evaluates its own parts.

use std::path::Path;
use std::process::{Command, Stdio};

/// The paths in the example are those of the repository, from whose root it is started.
#[test]
fn trains_with_its_own_parts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_moco-example-swap"));
    command.current_dir(&root).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let run = root.join(format!("runs/swap-{}", child.id()));
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.starts_with("Finished(") && stdout.contains("steps: 20,"), "{stdout}");
    std::fs::remove_dir_all(run).unwrap();
}
