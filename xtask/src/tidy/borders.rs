//! Abilities of only some libraries: parsing outside formats, starting threads, reaching the terminal.

use super::{Problem, lexer};
use crate::tree::SourceFile;

/// Files and folders that parse what comes from outside.
const MAY_DESERIALIZE: [&str; 5] = [
    "crates/config/",
    "crates/checkpoint/",
    "crates/telemetry/",
    "crates/ingest/src/manifest",
    "crates/train/src/summary",
];

/// The crate whose threads have names, owners and a way to end.
const MAY_START_THREADS: [&str; 1] = ["crates/pipeline/"];

/// The crate that writes to the terminal and reads the environment. All others log by tracing, and say nothing
/// otherwise: `println!` and its kin are refused by clippy.
const MAY_REACH_THE_TERMINAL: [&str; 1] = ["crates/cli/"];

/// Problems of one file; none outside a library or in its tests.
pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    let library = file.path.starts_with("crates/") && file.path.contains("/src/");
    if !library || !file.has_extension("rs") {
        return Vec::new();
    }
    let code = lexer::code_only(&lexer::without_tests(file.text()));
    let find = |words: &[&str], allowed: &[&str], text: &'static str| {
        let exempt = allowed.iter().any(|start| file.path.starts_with(start));
        let lines = code.lines().enumerate();
        let hits =
            lines.filter(|(_, line)| !exempt && words.iter().any(|word| line.contains(word)));
        hits.map(|(line_idx, _)| Problem::in_line(file, line_idx, text)).collect::<Vec<_>>()
    };
    let mut problems = find(
        &["Deserialize"],
        &MAY_DESERIALIZE,
        "`Deserialize` outside the borders listed in xtask/src/tidy/borders.rs",
    );
    problems.extend(find(
        &["thread::spawn", "thread::scope", "thread::Builder", "mpsc::"],
        &MAY_START_THREADS,
        "threads and channels come from moco-pipeline",
    ));
    problems.extend(find(
        &["stderr()", "stdout()", "/dev/tty", "log::info!", "log::warn!", "log::error!"],
        &MAY_REACH_THE_TERMINAL,
        "a library logs by tracing, and by nothing else",
    ));
    problems.extend(find(
        &["env::var", "env::set_var"],
        &MAY_REACH_THE_TERMINAL,
        "the environment is read in moco-cli",
    ));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_borders_deserialize() {
        let text = "//! Not Deserialize.\n#[derive(Debug, serde::Deserialize)]\nstruct A;\n";
        for (path, n_problems) in [
            ("crates/moco/src/config.rs", 1),
            ("crates/ingest/src/sampler.rs", 1),
            ("crates/ingest/src/manifest.rs", 0),
            ("crates/config/src/raw.rs", 0),
            ("crates/moco/tests/golden.rs", 0),
            ("bins/step/src/main.rs", 0),
        ] {
            let problems = check(&SourceFile::new(path, text));
            assert_eq!(problems.len(), n_problems, "{path}");
            assert!(problems.iter().all(|problem| problem.place == format!("{path}:2")));
        }
    }

    #[test]
    fn libraries_log_by_tracing() {
        let terminal = "a library logs by tracing, and by nothing else";
        let environment = "the environment is read in moco-cli";
        for (path, text, expected) in [
            ("crates/train/src/event.rs", "writeln!(std::io::stderr(), \"late\")", Some(terminal)),
            ("crates/train/src/event.rs", "io::stdout().lock()", Some(terminal)),
            ("crates/train/src/event.rs", "log::warn!(\"late\")", Some(terminal)),
            ("crates/train/src/event.rs", "tracing::warn!(\"late\")", None),
            ("crates/train/src/event.rs", "// stderr() is for programs", None),
            ("crates/cli/src/console.rs", "std::io::stderr()", None),
            ("bins/pretrain/src/main.rs", "std::io::stderr()", None),
            ("crates/ops/src/device.rs", "std::env::var_os(\"THREADS\")", Some(environment)),
            ("crates/cli/src/log.rs", "std::env::var_os(FILTER)", None),
        ] {
            let problems = check(&SourceFile::new(path, text));
            let found: Vec<String> = problems.iter().map(Problem::to_string).collect();
            let expected = expected.map(|text| format!("{path}:1: {text}"));
            assert_eq!(found, Vec::from_iter(expected), "{text}");
        }
    }

    #[test]
    fn only_the_pipeline_starts_threads() {
        for (path, text, n_problems) in [
            ("crates/moco/src/queue.rs", "std::thread::spawn(run);", 1),
            ("crates/moco/src/queue.rs", "// thread::spawn(run);", 0),
            ("crates/moco/src/queue.rs", "thread::available_parallelism()", 0),
            ("crates/moco/src/queue.rs", "#[cfg(test)]\nmod tests { thread::spawn(run); }", 0),
            ("crates/pipeline/src/crew.rs", "std::thread::Builder::new()", 0),
        ] {
            assert_eq!(check(&SourceFile::new(path, text)).len(), n_problems, "{path}: {text}");
        }
    }
}
