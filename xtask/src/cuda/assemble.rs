//! Assembles the kernels for real devices, to see what they take there: the drivers' own compiler will do
//! the same, and nothing else shows registers that do not suffice before a device runs slowly.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use super::Kit;

/// Devices of the data centers that runs are made for: A100, H100.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90"];

/// Fails if a kernel spills registers to memory.
pub(crate) fn run() -> anyhow::Result<()> {
    let ptx = newest_ptx()?;
    let cubin = ptx.with_extension("cubin");
    for architecture in ARCHITECTURES {
        let output = Command::new(Kit::Build.home().join("bin/ptxas"))
            .args(["-v", "-arch", architecture, "-o"])
            .args([&cubin, &ptx])
            .output()
            .context("cannot start ptxas of the kit")?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("ptxas -arch {architecture}: {}\n{text}", output.status);
        }
        let (entries, spilling) = read(&text);
        println!("{architecture}: {entries} entries, {} spill registers", spilling.len());
        if entries == 0 || !spilling.is_empty() {
            bail!("{architecture}: kernels that spill registers: {}", spilling.join(", "));
        }
    }
    Ok(())
}

/// Those of the build that was made last.
fn newest_ptx() -> anyhow::Result<PathBuf> {
    let builds = Kit::Build.folder().join("release/build");
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&builds).with_context(|| format!("reading {}", builds.display()))? {
        let path = entry?.path().join("out/moco.ptx");
        if let Ok(made) = fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            found.push((made, path));
        }
    }
    let newest = found.into_iter().max();
    Ok(newest.with_context(|| format!("no kernels in {}", builds.display()))?.1)
}

/// The number of entries in the output of ptxas, and those that spill.
fn read(text: &str) -> (usize, Vec<String>) {
    let (mut entries, mut name, mut spilling) = (0, "", Vec::new());
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            entries += 1;
            name = rest.split('\'').next().unwrap_or_default();
        } else if line.contains("spill stores")
            && !line.contains(" 0 bytes spill stores, 0 bytes spill loads")
        {
            spilling.push(format!("{name} ({})", line.trim()));
        }
    }
    (entries, spilling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_and_those_that_spill_are_named() {
        let text = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sgd' for 'sm_90'
ptxas info    : Function properties for sgd
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 31 registers, used 1 barriers, 64 bytes smem
ptxas info    : Compiling entry function 'ema' for 'sm_90'
ptxas info    : Function properties for ema
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
";
        let spilling = "ema (8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads)";
        assert_eq!(read(text), (2, vec![spilling.to_owned()]));
        assert_eq!(read(""), (0, Vec::new()));
    }
}
