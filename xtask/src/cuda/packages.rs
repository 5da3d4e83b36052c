//! NVIDIA's compiler and headers from the Python package index: no root, no installer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::commands::call;

/// CUDA 13.0.2, whose PTX drivers from 580 on take; the release that PyTorch 2.11 brings.
const PINS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-runtime==13.0.96",
];
/// Where the packages have their files.
const INSIDE: &str = "nvidia/cu13";
const PLATFORMS: [&str; 4] = [
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_18_x86_64",
    "manylinux2014_x86_64",
];

/// Makes `home` a link to the unpacked packages.
pub(crate) fn install(home: &Path) -> anyhow::Result<()> {
    let folder = home.with_file_name("packages");
    let stamp = folder.join("pins");
    let pins = PINS.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == pins) {
        return Ok(());
    }
    eprintln!("fetching NVIDIA's compiler and headers, 104 MB (once)");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let wheels = folder.join("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("making {}", wheels.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--dest"]).arg(&wheels);
    for platform in PLATFORMS {
        pip.args(["--platform", platform]);
    }
    call(pip.args(PINS)).context("pip is needed (Debian: apt-get install -y python3-pip)")?;
    let entries = fs::read_dir(&wheels).with_context(|| format!("reading {}", wheels.display()))?;
    for wheel in entries {
        let wheel = wheel.context("a package")?.path();
        let mut unzip = Command::new("python3");
        call(unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))
            .context("a broken download")?;
    }
    fs::remove_dir_all(&wheels).with_context(|| format!("removing {}", wheels.display()))?;
    let unpacked = folder.join(INSIDE);
    // zipfile forgets that files can be run.
    for programs in ["bin", "nvvm/bin"] {
        let programs = unpacked.join(programs);
        for program in
            fs::read_dir(&programs).with_context(|| format!("reading {}", programs.display()))?
        {
            let program = program.context("a program")?.path();
            if program.is_file() {
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
                    .with_context(|| format!("making {} runnable", program.display()))?;
            }
        }
    }
    link(Path::new("lib"), &unpacked.join("lib64"))?;
    link(&Path::new("packages").join(INSIDE), home)?;
    fs::write(&stamp, pins).with_context(|| format!("writing {}", stamp.display()))
}

fn link(to: &Path, at: &Path) -> anyhow::Result<()> {
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).with_context(|| format!("removing {}", at.display()))?;
    }
    std::os::unix::fs::symlink(to, at).with_context(|| format!("linking {}", at.display()))
}
