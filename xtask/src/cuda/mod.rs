//! Building for CUDA on a machine that has none of NVIDIA's software: a kit of pinned packages, or only
//! for checks a stand-in for the compiler.
//!
//! Each kit has a target folder of its own: a build script that caches by the source would take the empty
//! kernels of a check for real ones.

mod assemble;
#[cfg(test)]
mod check_faults;
#[cfg(test)]
mod check_pack;
#[cfg(test)]
mod check_starts;
#[cfg(test)]
mod check_tests;
mod commands;
mod dist;
mod gpu_check;
mod lazy;
pub(crate) mod nvcc;
mod packages;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::tree;

pub(crate) use self::assemble::run as assemble;
pub(crate) use self::dist::{DistArgs, FEATURES, run as dist};
pub(crate) use self::gpu_check::{rehearse, run as gpu_check, start_packed};

/// Release of CUDA that the kit is of, as cudarc writes it.
const VERSION: &str = "13000";
/// What kernels are compiled for; drivers compile it further for any later device. 90 would mean
/// sm_90a, which no other device takes.
const COMPUTE_CAP: &str = "80";

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Only what `cargo check` and clippy need: downloads nothing, cannot link
    #[arg(long)]
    check_only: bool,
}

/// The prerequisites of a build for CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kit {
    /// Type checks: a compiler that writes empty kernels.
    Check,
    /// Real kernels, and libraries that are looked for when the program runs.
    Build,
}

impl Kit {
    fn folder(self) -> PathBuf {
        let name = match self {
            Self::Check => "cuda-check",
            Self::Build => "cuda",
        };
        tree::root().join("target").join(name)
    }

    /// Makes what is missing of the kit.
    fn make(self) -> anyhow::Result<()> {
        nvcc::install(&self.nvcc())?;
        if self == Self::Build {
            packages::install(&self.home())?;
            lazy::install(&self.home().join("lib").join("stubs"))?;
        }
        Ok(())
    }

    /// The stand-in compiler, which calls the real one where that is needed.
    fn nvcc(self) -> PathBuf {
        self.folder().join("kit").join("nvcc")
    }

    /// Where NVIDIA's packages are.
    fn home(self) -> PathBuf {
        self.folder().join("kit").join("cuda")
    }

    /// The environment of cargo, after what is missing of the kit was made.
    pub(crate) fn environment(self) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        self.make()?;
        self.variables()
    }

    fn variables(self) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        let mut variables: Vec<(&'static str, OsString)> = vec![
            ("NVCC", self.nvcc().into()),
            ("CUDARC_CUDA_VERSION", VERSION.into()),
            ("CUDA_COMPUTE_CAP", COMPUTE_CAP.into()),
            ("CARGO_TARGET_DIR", self.folder().into()),
        ];
        if self == Self::Build {
            let home = self.home();
            variables.push((nvcc::REAL, home.join("bin").join("nvcc").into()));
            variables.push(("NVCC_CCBIN", host_compiler()?.into()));
            variables.push(("CUDA_HOME", home.clone().into()));
            variables.push(("CUDA_PATH", home.into()));
        }
        Ok(variables)
    }
}

/// The environment of cargo for real kernels: nothing but the machine's own where CUDA is installed, else
/// that of the kit.
pub(crate) fn build_environment() -> anyhow::Result<Vec<(&'static str, OsString)>> {
    if in_path("nvcc").is_some() { Ok(Vec::new()) } else { Kit::Build.environment() }
}

/// `cargo xtask cuda-setup`.
pub(crate) fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let kit = if args.check_only { Kit::Check } else { Kit::Build };
    let environment = kit.environment()?;
    println!("# the environment for cargo with --features cuda,cudnn,nccl");
    for (name, value) in environment {
        println!("export {name}={}", quoted(&value.to_string_lossy()));
    }
    Ok(())
}

/// As one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The C++ compiler that NVIDIA's compiler calls.
fn host_compiler() -> anyhow::Result<PathBuf> {
    in_path("g++").context("no g++ (Debian: apt-get install -y g++)")
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_check_needs_nothing_of_nvidias() {
        let names: Vec<&str> =
            Kit::Check.variables().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["NVCC", "CUDARC_CUDA_VERSION", "CUDA_COMPUTE_CAP", "CARGO_TARGET_DIR"]);
    }
}
