//! Packs everything that proves this workspace on a GPU: `cargo xtask gpu-check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::commands::call;
use super::{Kit, dist};
use crate::{stage, tree};

/// What can be copied to a borrowed GPU machine in one upload, with some margin.
const MOST_BYTES: u64 = 45_000_000;
/// Finds what the programs share, however far apart it lies; a slower preset would save little more.
const COMPRESSION: &str = "xz --threads=1 --x86 --lzma2=preset=3,dict=192MiB";
/// A rehearsal's, with bounds for parts on a slow CPU.
const REHEARSAL_SECONDS: &str = "600";
/// Of our programs those that the script starts.
const PROGRAMS: [&str; 3] = ["bench", "pretrain", "step"];
/// The tests run on a device instead of the emulator. Programs get these features too, since then nothing
/// is built twice; they change only what tests call.
const FEATURES: &str = "moco-ops/device-tests,moco-tests/device-tests,cuda,cudnn,nccl";
/// Their tests, some of which a device takes part in.
pub(super) const TESTS: [&str; 2] = ["ops", "across_crates"];
/// Files of the repository that the programs read there, and their places in the pack.
const FILES: [(&str, &str); 15] = [
    ("configs/pretrain/base.toml", "configs/pretrain/base.toml"),
    ("configs/pretrain/default.toml", "configs/pretrain/default.toml"),
    ("data-manifests/textures.toml", "data-manifests/textures.toml"),
    ("xtask/src/bench/torch_gpu.py", "torch_gpu.py"),
    ("xtask/src/bench/torch_gpu_conv.py", "torch_gpu_conv.py"),
    ("xtask/src/cuda/gpu_curve.py", "gpu_curve.py"),
    ("xtask/src/cuda/check/ceilings.py", "ceilings.py"),
    ("xtask/src/cuda/check/check.py", "check.py"),
    ("xtask/src/cuda/check/items.py", "items.py"),
    ("xtask/src/cuda/check/libtest.py", "libtest.py"),
    ("xtask/src/cuda/check/parts.py", "parts.py"),
    ("xtask/src/cuda/check/report.py", "report.py"),
    ("xtask/src/cuda/check/runs.py", "runs.py"),
    ("xtask/src/cuda/check/sides.py", "sides.py"),
    ("xtask/src/cuda/check/tools.py", "tools.py"),
];

/// Builds and packs; what comes out needs a driver and a Python with PyTorch.
pub(crate) fn run() -> anyhow::Result<()> {
    let built = build()?;
    let found = |names: &[&str], kind: Kind| -> anyhow::Result<Vec<PathBuf>> {
        let of = |name: &&str| {
            let found = built.iter().find(|(known, built, _)| known == name && *built == kind);
            Ok(found.with_context(|| format!("cargo built no {kind:?} `{name}`"))?.2.clone())
        };
        names.iter().map(of).collect()
    };
    let folder = dist::fill("gpu-check", Some(Kit::Build), &found(&PROGRAMS, Kind::Program)?)?;
    let tests = folder.join("tests");
    for (name, program) in TESTS.iter().zip(found(&TESTS, Kind::Test)?) {
        copy(&program, &tests.join(name))?;
    }
    let programs = PROGRAMS.iter().map(|name| folder.join(name));
    strip(programs.chain(TESTS.iter().map(|name| tests.join(name))))?;
    for (from, to) in FILES {
        copy(&tree::root().join(from), &folder.join(to))?;
    }
    let check = folder.join("check.py");
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} a program", check.display()))?;
    let archive = folder.with_extension("tar.xz");
    compress(&folder, &archive)?;
    expect_small(&folder, &archive, MOST_BYTES)?;
    println!("on the machine with the GPU:");
    println!(
        "  python3 -c 'import tarfile; tarfile.open(\"gpu-check.tar.xz\").extractall(filter=\"data\")'"
    );
    println!("  python3 gpu-check/check.py --seconds 360");
    Ok(())
}

/// Takes out of the programs what only debuggers read.
fn strip(programs: impl Iterator<Item = PathBuf>) -> anyhow::Result<()> {
    call(Command::new("strip").arg("--strip-all").args(programs))
        .context("strip is needed (Debian: apt-get install -y binutils)")
}

fn compress(folder: &Path, archive: &Path) -> anyhow::Result<()> {
    // Programs are next to each other, so that what they share is near.
    call(
        Command::new("tar")
            .args(["--create", "--sort=name", "--use-compress-program", COMPRESSION])
            .args([Path::new("--file"), archive, Path::new("--directory")])
            .arg(folder.parent().unwrap_or(folder))
            .arg(folder.file_name().unwrap_or_default()),
    )
    .context("tar and xz are needed (Debian: apt-get install -y tar xz-utils)")
}

/// Fails if the archive is too large, and says which part of the pack takes how much.
fn expect_small(folder: &Path, archive: &Path, most: u64) -> anyhow::Result<()> {
    let bytes = size(archive)?;
    println!("{}: {:.1} MB", archive.display(), dist::megabytes(bytes));
    if bytes <= most {
        return Ok(());
    }
    let mut parts = Vec::new();
    for place in [folder, &folder.join("tests")] {
        for entry in fs::read_dir(place).with_context(|| format!("reading {}", place.display()))? {
            let path = entry?.path();
            if path.is_file() {
                parts.push((size(&path)?, path));
            }
        }
    }
    parts.sort_unstable_by(|a, b| b.cmp(a));
    let listed: Vec<String> = parts
        .iter()
        .map(|(bytes, path)| {
            let name = path.strip_prefix(folder).unwrap_or(path);
            format!("  {:>6.1} MB  {}", dist::megabytes(*bytes), name.display())
        })
        .collect();
    bail!(
        "the archive has {:.1} MB, more than the {:.1} MB that an upload takes; before compression:\n{}",
        dist::megabytes(bytes),
        dist::megabytes(most),
        listed.join("\n")
    )
}

fn size(path: &Path) -> anyhow::Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len())
}

/// Starts a packed program on this machine: without a GPU it has to say what is missing and exit with 3.
pub(crate) fn start_packed() -> anyhow::Result<()> {
    if Path::new("/dev/nvidiactl").exists() {
        println!("this machine has a driver: start check.py in the packed folder instead");
        return Ok(());
    }
    let program = tree::root().join("target/dist/gpu-check/bench");
    let output = Command::new(&program)
        .args(["gpu-step", "--device", "cuda:0"])
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("exit {:?}: {message}", output.status.code());
    if output.status.code() != Some(3) || !message.contains("cuda:0 is not available") {
        bail!("{} must exit with 3 and name the device", program.display());
    }
    Ok(())
}

/// Rehearses the packed script on this machine's CPU: each part that has a meaning there passes.
pub(crate) fn rehearse() -> anyhow::Result<()> {
    let folder = tree::root().join("target/dist/gpu-check");
    let words = ["check.py", "--device", "cpu", "--seconds", REHEARSAL_SECONDS];
    call(Command::new("python3").args(words).current_dir(&folder))
        .context("the rehearsal failed; results.json in target/dist/gpu-check says why")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// What cargo built a target as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    Test,
}

/// Programs and tests by the names of their targets, from one call of cargo: two would build candle twice,
/// for each has features of its own.
fn build() -> anyhow::Result<Vec<(String, Kind, PathBuf)>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--features", FEATURES]);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(tree::root());
    for name in PROGRAMS {
        cargo.args(["--package", &format!("moco-{name}"), "--bin", name]);
    }
    cargo.args(["--package", "moco-ops", "--package", "moco-tests"]);
    for name in TESTS {
        cargo.args(["--test", name]);
    }
    let output = cargo
        .envs(Kit::Build.environment()?)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo build: {}", output.status);
    }
    Ok(built_in(&String::from_utf8_lossy(&output.stdout)))
}

fn built_in(messages: &str) -> Vec<(String, Kind, PathBuf)> {
    let of = |(message, path): (serde_json::Value, PathBuf)| {
        let is_test = message["profile"]["test"] == true;
        let kind = if is_test { Kind::Test } else { Kind::Program };
        Some((message["target"]["name"].as_str()?.to_owned(), kind, path))
    };
    stage::programs(messages).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_tests_are_read_from_cargo() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"moco_ops"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"emulated"},"profile":{"test":true},"executable":"/t/emulated-1"}
{"reason":"compiler-artifact","target":{"name":"bench"},"profile":{"test":false},"executable":"/t/bench"}
{"reason":"build-finished","success":true}"#;
        let expected = [
            ("emulated".to_owned(), Kind::Test, PathBuf::from("/t/emulated-1")),
            ("bench".to_owned(), Kind::Program, PathBuf::from("/t/bench")),
        ];
        assert_eq!(built_in(messages), expected);
    }

    /// A new test of the emulator is a test on a device too.
    #[test]
    fn every_test_of_the_emulator_has_a_part() {
        let parts = tree::root().join("xtask/src/cuda/check/parts.py");
        let parts = fs::read_to_string(parts).unwrap();
        let mut found = 0;
        for folder in ["crates/ops/tests", "tests"] {
            for entry in fs::read_dir(tree::root().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap_or_default();
                let is_test =
                    path.extension().is_some_and(|extension| extension == "rs") && name != "main";
                if is_test && (text.contains("emulate") || text.contains("device-tests")) {
                    let is_named = [format!("\"{name}\""), format!("\"{name}::")];
                    assert!(is_named.iter().any(|name| parts.contains(name)), "no part has {name}");
                    found += 1;
                }
            }
        }
        assert!(found >= 14, "{found}");
    }

    #[test]
    fn an_archive_that_is_too_large_is_refused_with_the_size_of_each_part() {
        let folder = std::env::temp_dir().join(format!("moco-pack-{}", std::process::id()));
        fs::create_dir_all(folder.join("tests")).unwrap();
        for (name, bytes) in [("bench", 3_000_000), ("tests/emulated", 5_000_000), ("a.tar.xz", 9)]
        {
            fs::write(folder.join(name), vec![0; bytes]).unwrap();
        }
        let archive = folder.join("a.tar.xz");
        expect_small(&folder, &archive, 9).unwrap();
        let error = expect_small(&folder, &archive, 8).unwrap_err().to_string();
        let expected = "the archive has 0.0 MB, more than the 0.0 MB that an upload takes; before \
                        compression:\n     5.0 MB  tests/emulated\n     3.0 MB  bench\n     0.0 MB  a.tar.xz";
        assert_eq!(error, expected);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_packed_exists() {
        for (file, _) in FILES {
            assert!(tree::root().join(file).is_file(), "{file}");
        }
        for entry in fs::read_dir(tree::root().join("xtask/src/cuda/check")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(tree::root()).unwrap().to_string_lossy().into_owned();
            let is_packed = FILES.iter().any(|(file, _)| *file == name);
            assert!(is_packed || !path.is_file(), "{name} is not packed");
        }
    }
}
