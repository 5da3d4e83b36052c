//! Every check, cheapest first: what the continuous integration runs and the README lists.
//!
//! It needs no terminal and no network once the packages are there. All it installs is below the target
//! folder: the pinned Python packages of the local S3 server that tests start. A missing C
//! compiler cannot be met here, since this program would not have been linked without one.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::cuda::{self, Kit};
use crate::{extend, golden, tidy, tree};

/// A step by its name, and what it does.
struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// Something this program does itself.
    Here(fn() -> anyhow::Result<()>),
    /// A command of cargo, and what its environment needs.
    Cargo { args: &'static str, env: Environment },
}

#[derive(Clone, Copy)]
enum Environment {
    /// Nothing.
    Plain,
    /// What checks without building share: a target folder, so that each dependency is checked once for all of
    /// them, and an empty stand-in for NVIDIA's compiler. Warnings of the documentation are errors.
    Checks,
    /// NVIDIA's compiler and libraries.
    Cuda,
}

impl Environment {
    fn variables(self) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Checks => {
                let mut variables = Kit::Check.environment()?;
                variables.push(("RUSTDOCFLAGS", "-D warnings".into()));
                Ok(variables)
            }
            Self::Cuda => Kit::Build.environment(),
        }
    }
}

/// All features that need no CUDA, of the packages that have them, but `cifar`.
macro_rules! features {
    () => {
        "moco-ingest/remote,moco-tests/emulator,moco-ops/emulator,moco-pretrain/remote,moco-shard/remote"
    };
}

/// Those and `cifar`, which a hundred crates come with that nothing calls: checks take them, while the tests
/// of every change are built without them.
macro_rules! all_features {
    () => {
        concat!(features!(), ",moco-pretrain/cifar")
    };
}

const FORMAT: Step =
    Step { name: "fmt", work: Work::Cargo { args: "fmt --all --check", env: Environment::Plain } };
const TIDY: Step = Step { name: "tidy", work: Work::Here(tidy::run) };
const GOLDEN: Step = Step { name: "golden", work: Work::Here(golden::run) };
const CLIPPY: Step = Step {
    name: "clippy",
    work: Work::Cargo {
        args: concat!(
            "clippy --release --workspace --all-targets --features ",
            all_features!(),
            " --locked -- -D warnings"
        ),
        env: Environment::Checks,
    },
};

const STEPS: [Step; 8] = [
    FORMAT,
    TIDY,
    GOLDEN,
    CLIPPY,
    Step {
        name: "cuda",
        work: Work::Cargo {
            args: "clippy --release --workspace --exclude moco-datasets --all-targets --features cuda,cudnn,nccl,moco-tests/device-tests --locked -- -D warnings",
            env: Environment::Checks,
        },
    },
    Step {
        name: "doc",
        work: Work::Cargo {
            args: concat!(
                "doc --release --workspace --no-deps --document-private-items --features ",
                all_features!(),
                " --locked"
            ),
            env: Environment::Checks,
        },
    },
    Step { name: "extend", work: Work::Here(extend::run) },
    Step {
        name: "test",
        work: Work::Cargo {
            args: concat!(
                "test --release --workspace --exclude moco-datasets --features ",
                features!(),
                " --locked --no-fail-fast"
            ),
            env: Environment::Plain,
        },
    },
];

/// What takes too long for every change: the tests' long forms, which the feature `long` of a package
/// switches on, and the tests of `cifar`, for all the crates that are built with it.
const LONG_STEPS: [Step; 5] = [
    FORMAT,
    TIDY,
    GOLDEN,
    CLIPPY,
    Step {
        name: "test",
        work: Work::Cargo {
            args: concat!(
                "test --release --workspace --features ",
                all_features!(),
                ",moco-feed/long,moco-pretrain/long,moco-tests/long --locked --no-fail-fast"
            ),
            env: Environment::Plain,
        },
    },
];

/// Tests that passed and failed, summed over the test binaries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
}

/// With NVIDIA's compiler, which is fetched on the way; a job of its own, for it takes minutes.
const CUDA_STEPS: [Step; 7] = [
    Step {
        name: "kernels",
        work: Work::Cargo {
            args: "build --release --package moco-ops --features cuda --locked",
            env: Environment::Cuda,
        },
    },
    Step { name: "assemble", work: Work::Here(cuda::assemble) },
    Step {
        name: "emulator",
        work: Work::Cargo {
            args: "test --release --package moco-ops --package moco-tests --package moco-bench --features moco-tests/emulator --locked --no-fail-fast",
            env: Environment::Plain,
        },
    },
    Step {
        name: "fault",
        work: Work::Cargo {
            // The packages of the step before, so that only what has the fault is built again.
            args: "test --release --package moco-ops --package moco-tests --package moco-bench --bin bench --features moco-tests/emulator,moco-bench/wrong-index --locked gpu_items",
            env: Environment::Plain,
        },
    },
    Step { name: "pack", work: Work::Here(cuda::gpu_check) },
    Step { name: "start", work: Work::Here(cuda::start_packed) },
    Step { name: "rehearse", work: Work::Here(cuda::rehearse) },
];

#[derive(Debug, Args)]
pub(crate) struct CiArgs {
    /// The CUDA job instead: kernels to PTX by NVIDIA's compiler and to code for devices, their tests on
    /// the host, portable programs that start without a driver
    #[arg(long)]
    cuda: bool,
    /// The long forms of tests too: more cases, more repetitions, and the files of CIFAR-10 and MNIST
    #[arg(long, conflicts_with = "cuda")]
    long: bool,
}

/// Runs the steps up to the first that fails and ends with the total of the tests.
pub(crate) fn run(args: &CiArgs) -> anyhow::Result<()> {
    let steps: &[Step] = match args {
        CiArgs { cuda: true, .. } => &CUDA_STEPS,
        CiArgs { long: true, .. } => &LONG_STEPS,
        _ => &STEPS,
    };
    let mut tests = None;
    let mut table = Vec::new();
    let mut failure = None;
    for step in steps {
        println!("== {}", step.name);
        let start = Instant::now();
        let result = perform(&step.work, &mut tests);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        let row = format!("{:<8} {:>7.1} s  {word}", step.name, start.elapsed().as_secs_f64());
        println!("== {row}");
        table.push(row);
        if let Err(error) = result {
            failure = Some(error.context(format!("step `{}`", step.name)));
            break;
        }
    }
    println!("\n{}", table.join("\n"));
    for step in &steps[table.len()..] {
        println!("{:<8} {:>9}  not run", step.name, "");
    }
    if let Some(error) = &failure {
        println!("{error:#}");
    }
    if let Some(Tests { passed, failed }) = tests {
        println!("{passed} passed, {failed} failed");
    }
    failure.map_or(Ok(()), |_| bail!("the checks do not pass"))
}

fn perform(work: &Work, tests: &mut Option<Tests>) -> anyhow::Result<()> {
    match work {
        Work::Here(check) => check(),
        Work::Cargo { args, env } => cargo(args, &env.variables()?, tests),
    }
}

/// Runs a cargo command, passes its output on and adds up the test results in it.
fn cargo(args: &str, env: &[(&str, OsString)], tests: &mut Option<Tests>) -> anyhow::Result<()> {
    let shown: String = env.iter().map(|(key, value)| format!("{key}={value:?} ")).collect();
    println!("{shown}cargo {args}");
    let mut child = Command::new("cargo")
        .args(args.split(' '))
        .envs(env.iter().map(|(key, value)| (key, value)))
        .current_dir(tree::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("reading cargo's output")?;
        println!("{line}");
        if let Some(more) = test_result(&line) {
            let sum = tests.get_or_insert_default();
            sum.passed += more.passed;
            sum.failed += more.failed;
        }
    }
    let status = child.wait().context("waiting for cargo")?;
    if !status.success() {
        bail!("cargo {args}: {status}");
    }
    Ok(())
}

/// The counts in the last line of a test binary: `test result: ok. 3 passed; 0 failed; …`.
fn test_result(line: &str) -> Option<Tests> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        let counted = counts.split("; ").find_map(|part| part.strip_suffix(word))?;
        counted.trim().parse().ok()
    };
    Some(Tests { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_test_binary_are_read() {
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.52s",
                Some((12, 0)),
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                Some((3, 2)),
            ),
            ("test a::b ... ok", None),
            ("running 3 tests", None),
        ] {
            let expected = expected.map(|(passed, failed)| Tests { passed, failed });
            assert_eq!(test_result(line), expected, "{line}");
        }
    }

    #[test]
    fn a_failing_command_names_itself() {
        let error = cargo("no-such-command", &[], &mut None).unwrap_err().to_string();
        assert!(error.starts_with("cargo no-such-command: exit status"), "{error}");
    }

    #[test]
    fn the_steps_begin_with_the_cheapest() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names, ["fmt", "tidy", "golden", "clippy", "cuda", "doc", "extend", "test"]);
    }
}
