//! The servers of these tests and of those of `pretrain`: Python programs beside this file, which end with
//! the test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A server that ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn faults(folder: &Path) -> Self {
        Self::start(Path::new("python3"), "faults.py", folder)
    }

    /// S3 by moto. The first test that needs it installs the pinned packages below the target folder.
    pub(crate) fn s3(folder: &Path) -> Self {
        static PYTHON: OnceLock<PathBuf> = OnceLock::new();
        Self::start(PYTHON.get_or_init(python_with_moto), "s3.py", folder)
    }

    fn start(python: &Path, script: &str, folder: &Path) -> Self {
        let mut child = Command::new(python)
            .arg(here().join(script))
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // Whatever a server prints before its port is no number.
        while line.trim().parse::<u16>().is_err() {
            line.clear();
            let n = lines.read_line(&mut line).unwrap();
            assert!(n > 0, "{script} ended before it printed its port");
        }
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn here() -> PathBuf {
    // The same from each crate that compiles this file.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/ingest/tests/remote")
}

fn python_with_moto() -> PathBuf {
    let pins = std::fs::read_to_string(here().join("requirements.txt")).unwrap();
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let (done, python) = (environment.join("done.txt"), environment.join("bin/python"));
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == pins) {
        return python;
    }
    let run = |program: &Path, arguments: &[&std::ffi::OsStr]| {
        let status = Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "installing moto for the test of S3 fails: {arguments:?}");
    };
    run(Path::new("python3"), &["-m".as_ref(), "venv".as_ref(), environment.as_os_str()]);
    let file = here().join("requirements.txt");
    let quiet = ["-m", "pip", "install", "--quiet", "-r"].map(AsRef::as_ref);
    run(&python, &[&quiet[..], &[file.as_os_str()]].concat());
    std::fs::write(done, pins).unwrap();
    python
}
