//! Errors of logs and metrics.

use std::io;
use std::path::{Path, PathBuf};

/// A file of the run folder, the log or the memory meter could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A value cannot be written as JSON.
    #[error("cannot write a line of {}: {source}", path.display())]
    Serialize {
        /// The metrics file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A value that is not an object was given as a line of metrics.
    #[error("a line of {} must be a JSON object, got {got}", path.display())]
    NotAnObject {
        /// The metrics file.
        path: PathBuf,
        /// The JSON that was to be written.
        got: String,
    },
    /// The directives that choose which events are logged do not parse.
    #[error("bad log filter `{filter}`: {source} (try `info` or `info,moco_ingest=debug`)")]
    Filter {
        /// The directives.
        filter: String,
        /// The reason.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something in this process already receives the events.
    #[error("logging is already set up: {source}")]
    AlreadyInitialized {
        /// The error of tracing.
        source: tracing::subscriber::SetGlobalDefaultError,
    },
    /// The operating system does not report the peak memory.
    #[error("{} has no line like `VmHWM: 12 kB`, got {got}", path.display())]
    NoPeakMemory {
        /// The file that was read.
        path: PathBuf,
        /// The line in question, or that it is missing.
        got: String,
    },
}

impl TelemetryError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
