//! A stand-in for NVIDIA's compiler: this program, when it is started under the name `nvcc`.
//!
//! candle's build script compiles eleven files of kernels to PTX and fifteen of quantized kernels, which
//! nothing here calls and which take nine tenths of the time, to objects. The stand-in leaves the objects
//! out: calling one ends the program with a message. PTX is made by the real compiler, or is empty where
//! there is none, which is enough for type checks.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::commands::call;

/// The variable that names the real compiler; without it, kernels are empty.
pub(crate) const REAL: &str = "MOCO_REAL_NVCC";

/// What build scripts read of `nvcc --version`: the release, in the fourth line.
const VERSION_TEXT: &str = "nvcc: a stand-in for type checks\n\nnothing is compiled\n\
Cuda compilation tools, release 13.0, V13.0.88\n";
const ARCHITECTURES: &str = "sm_80\nsm_86\nsm_89\nsm_90\nsm_100\nsm_120\n";
/// The file whose object stands for all quantized kernels.
const FIRST_QUANTIZED: &str = "mmvq_gguf.cu";

/// Whether this process was started as the compiler.
pub(crate) fn is_called(program: Option<&OsStr>) -> bool {
    program.and_then(|program| Path::new(program).file_name()).is_some_and(|name| name == "nvcc")
}

/// Puts a copy of this program at `path`; a link would change under a running build.
pub(crate) fn install(path: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let newest = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    // Build scripts run again when the compiler is newer, so it stays as it is if it is the same.
    if fs::read(path).is_ok_and(|old| old == newest) {
        return Ok(());
    }
    let folder = path.parent().context("the compiler has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let new = path.with_extension("new");
    fs::copy(&program, &new).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("writing {}", path.display()))
}

/// The task that a call asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Version,
    Architectures,
    /// An object of this file.
    Object {
        source: PathBuf,
        to: PathBuf,
    },
    /// PTX of this file.
    Ptx {
        source: PathBuf,
        folder: PathBuf,
    },
    /// A library of these objects.
    Library {
        objects: Vec<PathBuf>,
        to: PathBuf,
    },
}

/// Runs as the compiler.
pub(crate) fn run(args: &[OsString]) -> anyhow::Result<()> {
    let real = std::env::var_os(REAL);
    match (task(args)?, &real) {
        (Task::Object { source, to }, _) => object(&source, &to),
        (Task::Library { objects, to }, None) => library(&objects, &to),
        (Task::Version, None) => print(VERSION_TEXT),
        (Task::Architectures, None) => print(ARCHITECTURES),
        (Task::Ptx { source, folder }, None) => {
            let name = Path::new(source.file_stem().context("a kernel file has a name")?);
            let file = folder.join(name.with_extension("ptx"));
            fs::write(&file, "// empty: made for type checks\n")
                .with_context(|| format!("writing {}", file.display()))
        }
        (_, Some(real)) => call(Command::new(real).args(args)),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing the answer")
}

fn task(args: &[OsString]) -> anyhow::Result<Task> {
    let after = |flag: &str| {
        let place = args.iter().position(|arg| arg == flag)?;
        args.get(place + 1).map(PathBuf::from)
    };
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let ending = |extension: &'static str| {
        let files = args.iter().map(PathBuf::from);
        files.filter(move |file| file.extension().is_some_and(|found| found == extension))
    };
    let source = || ending("cu").next().context("no .cu file is named");
    let to = || after("-o").context("no -o");
    if has("--version") {
        Ok(Task::Version)
    } else if has("--list-gpu-code") {
        Ok(Task::Architectures)
    } else if has("-c") {
        Ok(Task::Object { source: source()?, to: to()? })
    } else if has("--ptx") {
        let folder = after("--output-directory").context("no --output-directory")?;
        Ok(Task::Ptx { source: source()?, folder })
    } else if has("--lib") {
        let to = to()?;
        Ok(Task::Library { objects: ending("o").filter(|object| *object != to).collect(), to })
    } else {
        bail!("the stand-in for nvcc cannot do: {args:?}")
    }
}

/// An object that has what candle looks for in the quantized kernels: one file defines all of it.
fn object(source: &Path, to: &Path) -> anyhow::Result<()> {
    let declared = if source.ends_with(FIRST_QUANTIZED) {
        fs::read_to_string("src/ffi.rs").context("candle-kernels' declarations")?
    } else {
        String::new()
    };
    let mut code = String::from("#include <stdio.h>\n#include <stdlib.h>\n");
    for name in functions(&declared) {
        code += &format!(
            "void {name}(void) {{ fputs(\"{name}: quantized kernels are not in this build\\n\", \
             stderr); abort(); }}\n"
        );
    }
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-O1", "-fPIC", "-c", "-", "-o"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start cc")?;
    let mut input = compiler.stdin.take().context("cc has no input")?;
    input.write_all(code.as_bytes()).context("writing to cc")?;
    drop(input);
    let status = compiler.wait().context("waiting for cc")?;
    if status.success() { Ok(()) } else { bail!("cc: {status}") }
}

/// The names after `pub fn`, each once.
fn functions(declared: &str) -> Vec<&str> {
    let mut names: Vec<&str> = declared
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub fn ")?.split('(').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn library(objects: &[PathBuf], to: &Path) -> anyhow::Result<()> {
    call(Command::new("ar").arg("crs").arg(to).args(objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_build_scripts_are_understood() {
        for (line, expected) in [
            ("--version", Task::Version),
            ("--list-gpu-code", Task::Architectures),
            (
                "-gencode=arch=compute_80,code=sm_80 -c -o out/a.o -ccbin g++ src/a.cu",
                Task::Object { source: "src/a.cu".into(), to: "out/a.o".into() },
            ),
            (
                "--ptx --default-stream per-thread --output-directory out src/b.cu",
                Task::Ptx { source: "src/b.cu".into(), folder: "out".into() },
            ),
            (
                "--lib -o libmoe.a a.o b.o",
                Task::Library { objects: vec!["a.o".into(), "b.o".into()], to: "libmoe.a".into() },
            ),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(task(&args).unwrap(), expected, "{line}");
        }
        let error = task(&["-run".into()]).unwrap_err().to_string();
        assert!(error.contains("cannot do"), "{error}");
    }

    #[test]
    fn it_is_known_by_its_name() {
        assert!(is_called(Some(OsStr::new("/kit/nvcc"))));
        assert!(!is_called(Some(OsStr::new("target/debug/xtask"))));
        assert!(!is_called(None));
    }

    #[test]
    fn declared_functions_are_found_once() {
        let declared =
            "extern \"C\" {\n    pub fn b(\n  x: i32);\n pub fn a(x: f32);\n pub fn b();\n}";
        assert_eq!(functions(declared), ["a", "b"]);
    }
}
