//! Packs everything that proves this workspace on a GPU: `cargo xtask gpu-check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::{Kit, dist};
use crate::{stage, tree};

/// Runs it all on the machine with the GPU.
const CHECK: &str = include_str!("gpu_check.py");
/// Packages with tests that a device can take, and their feature for it.
const TESTED: [(&str, &str); 2] =
    [("moco-ops", "moco-ops/device-tests"), ("moco-tests", "moco-tests/device-tests")];
/// Their tests that a device takes part in.
const TESTS: [&str; 14] = [
    "emulated",
    "emulated_activations",
    "emulated_batch_norm",
    "emulated_images",
    "emulated_info_nce",
    "emulated_enqueue",
    "emulated_recording",
    "emulated_rows",
    "emulated_updates",
    "images_on_gpu",
    "emulated_step",
    "recorded_step",
    "emulated_evaluation",
    "step_parity",
];
/// Files of the repository that the programs read there.
const FILES: [&str; 4] = [
    "configs/pretrain/default.toml",
    "data-manifests/textures.toml",
    "xtask/src/bench/torch_gpu.py",
    "xtask/src/cuda/gpu_curve.py",
];

/// Builds and packs; what comes out needs a driver and a Python with PyTorch.
pub(crate) fn run() -> anyhow::Result<()> {
    let folder = dist::pack(Some(Kit::Build), "gpu-check")?;
    let tests = folder.join("tests");
    fs::create_dir_all(&tests).with_context(|| format!("making {}", tests.display()))?;
    let built = build_tests()?;
    for name in TESTS {
        let found = built.iter().find(|(target, _)| target == name);
        let (_, program) = found.with_context(|| format!("cargo built no test `{name}`"))?;
        copy(program, &tests.join(name))?;
    }
    for file in FILES {
        copy(&tree::root().join(file), &folder.join(file))?;
    }
    let check = folder.join("check.py");
    fs::write(&check, CHECK)
        .and_then(|()| fs::set_permissions(&check, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", check.display()))?;
    let archive = folder.with_extension("tar.gz");
    let status = Command::new("tar")
        .arg("--create")
        .arg("--gzip")
        .args([Path::new("--file"), &archive, Path::new("--directory")])
        .arg(folder.parent().unwrap_or(&folder))
        .arg("gpu-check")
        .status()
        .context("cannot start tar")?;
    if !status.success() {
        bail!("tar: {status}");
    }
    println!("{}", archive.display());
    println!("on the machine with the GPU: tar -xf gpu-check.tar.gz && cd gpu-check && ./check.py");
    Ok(())
}

/// Starts a packed program on this machine: without a GPU it has to say what is missing and exit with 3.
pub(crate) fn start_packed() -> anyhow::Result<()> {
    if Path::new("/dev/nvidiactl").exists() {
        println!("this machine has a driver: start check.py in the packed folder instead");
        return Ok(());
    }
    let program = tree::root().join("target/dist/gpu-check/knn");
    let output = Command::new(&program)
        .args(["no-such-run", "--device", "cuda:0"])
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("exit {:?}: {message}", output.status.code());
    if output.status.code() != Some(3) || !message.contains("cuda:0 is not available") {
        bail!("{} must exit with 3 and name the device", program.display());
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The test programs by the names of their targets.
fn build_tests() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--release", "--locked", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(tree::root());
    for (package, feature) in TESTED {
        cargo.args(["--package", package, "--features", feature]);
    }
    let output = cargo
        .envs(Kit::Build.environment()?)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", output.status);
    }
    Ok(tests_in(&String::from_utf8_lossy(&output.stdout)))
}

fn tests_in(messages: &str) -> Vec<(String, PathBuf)> {
    let tests = stage::programs(messages).filter(|(message, _)| message["profile"]["test"] == true);
    tests
        .filter_map(|(message, path)| Some((message["target"]["name"].as_str()?.to_owned(), path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn test_programs_are_read_from_cargo() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"moco_ops"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"emulated"},"profile":{"test":true},"executable":"/t/emulated-1"}
{"reason":"compiler-artifact","target":{"name":"bench"},"profile":{"test":false},"executable":"/t/bench"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(tests_in(messages), [("emulated".to_owned(), PathBuf::from("/t/emulated-1"))]);
    }

    /// A new test of the emulator is a test on a device too.
    #[test]
    fn every_test_of_the_emulator_is_packed() {
        let mut found = BTreeSet::new();
        for folder in ["crates/ops/tests", "tests"] {
            for entry in fs::read_dir(tree::root().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap_or_default();
                let is_test = path.extension().is_some_and(|extension| extension == "rs");
                let takes_a_device = text.contains("emulate") || text.contains("device-tests");
                if is_test && takes_a_device {
                    found.insert(name);
                }
            }
        }
        assert_eq!(found, TESTS.iter().map(|name| (*name).to_owned()).collect());
    }

    #[test]
    fn what_is_packed_exists() {
        for file in FILES {
            assert!(tree::root().join(file).is_file(), "{file}");
        }
    }
}
