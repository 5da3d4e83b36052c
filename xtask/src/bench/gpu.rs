//! `cargo xtask bench gpu`: our training step on a GPU and PyTorch's, whole and in phases.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use serde_json::Value;

use super::gpu_table::{Reports, Side};
use super::python;
use crate::{cuda, stage, tree};

/// What the script says with when this machine is not what it needs.
const UNFIT: i32 = 3;

/// The sides take turns, each in a process of its own: ours (with steps on images that come through the
/// pipeline), PyTorch eager, and PyTorch with torch.compile; PyTorch in channels-last order, for bf16
/// under autocast, and batch norm over the whole batch on each side. Each number is the median of the
/// trials. Results also go to target/bench/gpu.json.
///
/// Without a GPU it ends with a message, exit code 3 and no result. `--device cpu --precision f32` with
/// small sizes tries everything out; those results go to target/bench/gpu-rehearsal.json.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Turns that each side takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    trials: u16,
    /// Interpreter with PyTorch and torchvision [default: python3; on the CPU that of `bench step`]
    #[arg(long)]
    python: Option<PathBuf>,
    /// A binary `bench` that was built for CUDA [default: it is built]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where to compute: cuda:N or cpu
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// bf16, tf32 or f32
    #[arg(long, default_value = "bf16")]
    precision: String,
    /// A ResNet that torchvision has too
    #[arg(long, default_value = "resnet50")]
    arch: String,
    /// Height and width of the views
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// Images of a step, each with two views
    #[arg(long, default_value_t = 256)]
    batch_size: u32,
    /// Keys in the queue
    #[arg(long, default_value_t = 65_536)]
    queue_size: u32,
    /// Ours replays one captured step (a CUDA graph)
    #[arg(long)]
    cuda_graph: bool,
    /// Steps in a timed block
    #[arg(long, default_value_t = 30)]
    steps: u32,
    /// Timed blocks of a trial
    #[arg(long, default_value_t = 5)]
    blocks: u32,
    /// Steps before the first timed one
    #[arg(long, default_value_t = 10)]
    warmup: u32,
}

impl Args {
    fn is_rehearsal(&self) -> bool {
        self.device == "cpu"
    }

    /// What both programs are asked for, in the words that both know.
    fn words(&self) -> Vec<OsString> {
        let counts = [
            ("--size", self.size),
            ("--batch-size", self.batch_size),
            ("--queue-size", self.queue_size),
            ("--steps", self.steps),
            ("--blocks", self.blocks),
            ("--warmup", self.warmup),
        ];
        let texts =
            [("--device", &self.device), ("--precision", &self.precision), ("--arch", &self.arch)];
        let texts = texts.map(|(name, text)| [name.into(), text.into()]);
        let counts = counts.map(|(name, count)| [name.into(), count.to_string().into()]);
        texts.into_iter().chain(counts).flatten().collect()
    }
}

/// This machine cannot measure what is to be measured.
#[derive(Debug)]
pub(crate) struct Unfit(String);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let interpreter = match &args.python {
        Some(given) => given.clone(),
        // The environment of the other peers has stand-ins for the libraries of a GPU.
        None if args.is_rehearsal() => python::interpreter()?,
        None => "python3".into(),
    };
    // Before the build, which takes minutes.
    let peer = checked(&interpreter, &args.device)?;
    let binary = binary(args)?;
    let mut reports = Reports::default();
    for trial in 1..=args.trials {
        for side in Side::ALL {
            if reports.has_failed(side) {
                continue;
            }
            eprintln!("trial {trial} of {}: {}", args.trials, side.name());
            reports.take(side, report(&mut command(side, args, &binary, &interpreter)));
        }
    }
    println!("{}\n{peer}, {}\n", reports.title(), interpreter.display());
    print!("{}", reports.table());
    let name = if args.is_rehearsal() { "gpu-rehearsal.json" } else { "gpu.json" };
    let rows = reports.rows();
    if !rows.is_empty() {
        let path = tree::root().join("target/bench").join(name);
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::create_dir_all(path.with_file_name(""))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("\nalso in {}", path.display());
    }
    reports.failures().map_or(Ok(()), |failures| bail!("not all sides ran: {failures}"))
}

fn script() -> PathBuf {
    tree::root().join("xtask/src/bench/torch_gpu.py")
}

/// The versions of PyTorch, or why it cannot compute on the device.
fn checked(interpreter: &Path, device: &str) -> anyhow::Result<String> {
    let output = Command::new(interpreter)
        .arg(script())
        .args(["--check", "--device", device])
        .output()
        .with_context(|| format!("cannot start {}; see --python", interpreter.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Some(UNFIT) => Err(Unfit(errors).into()),
        _ => bail!("{} fails: {errors}", script().display()),
    }
}

/// Our binary, built unless one is given.
fn binary(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(given) = &args.binary {
        return given.canonicalize().with_context(|| format!("no binary {}", given.display()));
    }
    if args.is_rehearsal() {
        return stage::build("bench", &[]);
    }
    let features: Vec<String> = cuda::FEATURES.split(',').map(String::from).collect();
    stage::build_in("bench", &features, &cuda::build_environment()?)
}

fn command(side: Side, args: &Args, binary: &Path, interpreter: &Path) -> Command {
    let mut command = match side {
        Side::Ours if args.is_rehearsal() => Command::new(binary),
        Side::Ours => {
            let mut command = Command::new("sh");
            command.arg(tree::root().join("xtask/src/cuda/with-cuda.sh")).arg(binary);
            command.env("PYTHON", interpreter);
            command
        }
        Side::Eager | Side::Compiled => {
            let mut command = Command::new(interpreter);
            command.arg(script());
            command
        }
    };
    if side == Side::Ours {
        command.arg("gpu-step").arg("--feed");
        command.args(args.cuda_graph.then_some("--cuda-graph"));
    }
    command.args(args.words());
    if side == Side::Compiled {
        command.arg("--compile");
    }
    command
}

/// Runs a side to its end; it says what is wrong by itself.
fn report(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // A compiler may have had something to say before.
    let last = text.trim().lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("no report in {last:?}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        let words = std::iter::once("gpu").chain(line.split_whitespace());
        Cli::try_parse_from(words).unwrap().args
    }

    fn words(command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ").replace(&*tree::root().to_string_lossy(), "ROOT")
    }

    #[test]
    fn both_programs_are_asked_for_the_same() {
        let asked = "--device cuda:1 --precision bf16 --arch resnet50 --size 224 --batch-size 256 \
                     --queue-size 65536 --steps 30 --blocks 5 --warmup 10";
        let args = args("--device cuda:1");
        let command = |side| words(&command(side, &args, Path::new("B"), Path::new("P")));
        let script = "P ROOT/xtask/src/bench/torch_gpu.py";
        for (side, expected) in [
            (Side::Ours, format!("sh ROOT/xtask/src/cuda/with-cuda.sh B gpu-step --feed {asked}")),
            (Side::Eager, format!("{script} {asked}")),
            (Side::Compiled, format!("{script} {asked} --compile")),
        ] {
            assert_eq!(command(side), expected);
        }
        let args = self::args("--cuda-graph");
        let [ours, eager] = [Side::Ours, Side::Eager]
            .map(|side| words(&super::command(side, &args, Path::new("B"), Path::new("P"))));
        assert!(ours.contains(" gpu-step --feed --cuda-graph --device"), "{ours}");
        assert!(!eager.contains("graph"), "{eager}");
    }

    #[test]
    fn a_rehearsal_starts_our_binary_as_it_is() {
        let args = args("--device cpu --precision f32 --steps 1");
        let command = command(Side::Ours, &args, Path::new("B"), Path::new("P"));
        assert!(words(&command).starts_with("B gpu-step --feed --device cpu --precision f32 "));
    }

    #[test]
    fn a_machine_that_does_not_fit_ends_it_before_the_build() {
        let folder = std::env::temp_dir().join(format!("moco-bench-gpu-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = |name: &str, body: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let no_gpu = program("no-gpu", "echo 'no GPU: none here' >&2; exit 3");
        let run_with = |python: &Path| run(&Args { python: Some(python.into()), ..args("") });
        let error = run_with(&no_gpu).unwrap_err();
        assert_eq!(error.to_string(), "no GPU: none here");
        assert!(error.is::<Unfit>());
        let broken = program("broken", "echo boom >&2; exit 1");
        let error = run_with(&broken).unwrap_err();
        assert!(error.to_string().ends_with("torch_gpu.py fails: boom") && !error.is::<Unfit>());
        let error = run_with(&folder.join("nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("cannot start") && error.ends_with("see --python"), "{error}");
        let fits = program("fits", "echo 'PyTorch 9'");
        assert_eq!(checked(&fits, "cuda:0").unwrap(), "PyTorch 9");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_report_is_the_last_line_and_a_failure_an_error() {
        let shell = |script: &str| report(Command::new("sh").args(["-c", script]));
        assert_eq!(shell("echo compiling; echo '{\"step_ms\": 2}'").unwrap()["step_ms"], 2);
        assert_eq!(shell("echo '{}'; exit 3").unwrap_err().to_string(), "exit status: 3");
        assert_eq!(shell("echo hello").unwrap_err().to_string(), "no report in \"hello\"");
    }
}
