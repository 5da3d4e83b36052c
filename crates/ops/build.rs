//! Compiles the CUDA kernels: to PTX for feature `cuda`, and for the host for feature `emulator`.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// What a device of any later architecture can be given; the driver compiles it for the one installed.
const ARCH: &str = "arch=compute_80,code=compute_80";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=kernels");
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile_for_devices()?;
    }
    #[cfg(feature = "emulator")]
    emulator()?;
    Ok(())
}

#[cfg(feature = "emulator")]
fn emulator() -> Result<(), cc::Error> {
    let mut build = cc::Build::new();
    if env::var_os("CARGO_FEATURE_WRONG_INDEX").is_some() {
        build.define("MOCO_WRONG_INDEX", None);
    }
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        // A device fuses multiplications and additions as it likes; the host must not, or results
        // would depend on the compiler.
        .flag("-ffp-contract=off")
        .warnings(true)
        // `#pragma unroll` is for nvcc.
        .flag("-Wno-unknown-pragmas")
        .file("kernels/host/emulator.cpp")
        .try_compile("moco_emulator")
}

fn compile_for_devices() -> Result<(), Box<dyn Error>> {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NVCC_CCBIN"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let of_home = |home: &str| Some(PathBuf::from(env::var_os(home)?).join("bin").join("nvcc"));
    let nvcc = env::var_os("NVCC")
        .map(PathBuf::from)
        .or_else(|| of_home("CUDA_HOME"))
        .or_else(|| of_home("CUDA_PATH"))
        .unwrap_or_else(|| "nvcc".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut command = Command::new(&nvcc);
    command.args(["--ptx", "-O3", "-std=c++17", "--default-stream", "per-thread"]);
    // As on the host, where the emulator proves the kernels: what is to be one rounding says `fmaf`.
    command.arg("--fmad=false");
    command.arg(format!("-gencode={ARCH}")).arg("--output-directory").arg(&out);
    if let Some(compiler) = env::var_os("NVCC_CCBIN") {
        command.arg("-ccbin").arg(compiler);
    }
    let status = command.arg("kernels/moco.cu").status().map_err(|error| {
        format!(
            "cannot run {}: {error}; `cargo xtask cuda-setup` makes a build environment",
            nvcc.display()
        )
    })?;
    if !status.success() {
        return Err(format!("{} failed on kernels/moco.cu: {status}", nvcc.display()).into());
    }
    Ok(())
}
