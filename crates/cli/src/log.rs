//! The log of a program: which of its events `RUST_LOG` wants to see, and what a run keeps.

use std::process::ExitCode;

use moco_telemetry::{RunLog, TelemetryError, start_log};

use crate::exit::{Exit, exit_code, usage};
use crate::screen::{AboveBar, print_result};

/// The variable with the filter of what is logged to standard error, for instance `info,moco_ingest=debug`.
const FILTER: &str = "RUST_LOG";

/// Runs a program with its log, and turns its result into its exit code; an error is logged and printed on
/// standard error, each cause on a line of its own.
///
/// Without `RUST_LOG` nothing is logged to standard error, which then has what the console writes.
#[must_use]
pub fn run_program(run: impl FnOnce(&RunLog) -> anyhow::Result<Exit>) -> ExitCode {
    exit_code(log_of_program().and_then(|log| run(&log)))
}

fn log_of_program() -> anyhow::Result<RunLog> {
    let filter = match filter() {
        Some(value) => Some(value.into_string().map_err(|value| {
            let value = value.to_string_lossy();
            usage(Exit::Usage, format!("{FILTER} must be UTF-8 text like `info`, got `{value}`"))
        })?),
        None => None,
    };
    start_log(filter.as_deref(), || AboveBar).map_err(|error| match error {
        TelemetryError::Filter { .. } => usage(Exit::Usage, format!("{FILTER}: {error}")),
        other => other.into(),
    })
}

/// Whether log lines go to standard error, so that the console need not repeat them.
pub(crate) fn logs_to_console() -> bool {
    filter().is_some()
}

/// The filter; one that is empty is as good as none.
fn filter() -> Option<std::ffi::OsString> {
    std::env::var_os(FILTER).filter(|value| !value.is_empty())
}

/// Prints a program's result on standard output, and logs its lines, so that a run's log has them too.
pub fn log_result(text: &str) {
    print_result(text);
    for line in text.lines().filter(|line| !line.is_empty()) {
        tracing::info!("{line}");
    }
}
