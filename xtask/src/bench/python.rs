//! The Python environment of the peers: the pinned packages of the golden files, made once.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{sha256, tree};

/// The interpreter, made first if it is not there or its pins have changed; that takes some minutes and
/// a package index.
pub(crate) fn interpreter() -> anyhow::Result<PathBuf> {
    let root = tree::root();
    let maker = root.join("tests/golden");
    let pins = maker.join("requirements.txt");
    let pins = std::fs::read(&pins).with_context(|| format!("reading {}", pins.display()))?;
    let digest = sha256::hex(&pins);
    let folder = root.join("target/bench/python");
    let (stamp, interpreter) = (folder.join("pins"), folder.join("python"));
    if std::fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == digest) {
        return Ok(interpreter);
    }
    eprintln!("making a Python environment with PyTorch in {} (once)", folder.display());
    let script = maker.join("make_venv.sh");
    let status = Command::new("bash").arg(&script).arg(&folder).status();
    if !status.context("cannot start bash")?.success() {
        bail!(
            "{} fails; it needs python3 with venv, gcc and readelf \
             (Debian: apt-get install -y python3-venv gcc binutils)",
            script.display()
        );
    }
    std::fs::write(&stamp, digest).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(interpreter)
}
