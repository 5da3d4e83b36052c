//! Packs the binaries for machines that have no Rust: `cargo xtask dist`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Kit;
use crate::tree;

/// Finds the libraries of a machine's PyTorch or CUDA and starts a program with them.
const LAUNCHER: &str = include_str!("with-cuda.sh");
/// Libraries that any Linux since 2021 has; a binary that needs another one does not start everywhere.
const EVERYWHERE: [&str; 6] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libdl.so.2",
    "ld-linux-x86-64.so.2",
];
/// Cargo's features of a CUDA build.
pub(crate) const FEATURES: &str = "cuda,cudnn,nccl";
/// A packed program cannot be built again where it runs, so it reads CIFAR-10 and MNIST.
const DATA_FEATURES: &str = "cifar";

#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// With the CUDA kernels, for NVIDIA drivers from 580 on; starts on machines without one as well
    #[arg(long)]
    cuda: bool,
}

/// Builds all binaries, checks what they need to start, and puts them into a folder of `target/dist`.
pub(crate) fn run(args: &DistArgs) -> anyhow::Result<()> {
    let kit = args.cuda.then_some(Kit::Build);
    let folder = fill(if args.cuda { "cuda" } else { "cpu" }, kit, &build(kit)?)?;
    if args.cuda {
        println!("on the machine with the GPU: ./with-cuda ./pretrain CONFIG --device cuda:0");
    }
    println!("{}", folder.display());
    Ok(())
}

/// The folder of that name below `target/dist`, with these binaries and what starts them.
pub(super) fn fill(name: &str, kit: Option<Kit>, programs: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let folder = tree::root().join("target").join("dist").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for program in programs {
        let needed = needed(program)?;
        let missing: Vec<&String> =
            needed.iter().filter(|library| !EVERYWHERE.contains(&library.as_str())).collect();
        if !missing.is_empty() {
            bail!("{} would not start without {missing:?}", program.display());
        }
        let to = folder.join(program.file_name().context("a program has a name")?);
        fs::copy(program, &to).with_context(|| format!("writing {}", to.display()))?;
        let bytes = fs::metadata(&to).with_context(|| format!("reading {}", to.display()))?.len();
        println!(
            "{:>12}  {:>6.1} MB  needs {}",
            file_name(&to),
            megabytes(bytes),
            needed.join(" ")
        );
    }
    if kit.is_some() {
        let launcher = folder.join("with-cuda");
        fs::write(&launcher, LAUNCHER)
            .and_then(|()| fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", launcher.display()))?;
    }
    Ok(folder)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The programs in `bins`, built with `--release`; with a kit, for CUDA.
fn build(kit: Option<Kit>) -> anyhow::Result<Vec<PathBuf>> {
    let bins = tree::root().join("bins");
    let entries = fs::read_dir(&bins).with_context(|| format!("reading {}", bins.display()))?;
    let mut names: Vec<String> = entries
        .map(|entry| Ok(file_name(&entry.context("a program's folder")?.path())))
        .collect::<anyhow::Result<_>>()?;
    names.sort_unstable();
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--features", DATA_FEATURES]);
    cargo.current_dir(tree::root());
    for name in &names {
        cargo.args(["--package", &format!("moco-{name}")]);
    }
    let target = kit.map_or_else(|| tree::root().join("target"), Kit::folder);
    match kit {
        Some(kit) => cargo.args(["--features", FEATURES]).envs(kit.environment()?),
        None => cargo.env("CARGO_TARGET_DIR", &target),
    };
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo build: {status}");
    }
    Ok(names.iter().map(|name| target.join("release").join(name)).collect())
}

/// The shared libraries without which a program does not start.
fn needed(program: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("readelf")
        .arg("--dynamic")
        .arg(program)
        .output()
        .context("cannot start readelf (Debian: apt-get install -y binutils)")?;
    if !output.status.success() {
        bail!("readelf {}: {}", program.display(), output.status);
    }
    Ok(needed_in(&String::from_utf8_lossy(&output.stdout)))
}

fn needed_in(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_readelf() {
        let text = "
 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x000000000000000c (INIT)               0x1000";
        assert_eq!(needed_in(text), ["libgcc_s.so.1", "libc.so.6"]);
        let own = needed(&std::env::current_exe().unwrap()).unwrap();
        assert!(own.contains(&"libc.so.6".to_owned()), "{own:?}");
    }
}
