//! Errors in the files of a data set, each with a hint for the user.

use std::{io, path::PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetsError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of the data set is not there.
    #[error("{} is missing; {hint}", path.display())]
    FileMissing {
        /// The path that was searched.
        path: PathBuf,
        /// A hint for the user.
        hint: &'static str,
    },
    /// A file has not the length that its format demands.
    #[error("{} has the wrong size: expected {expected} bytes, got {got}; {hint}", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Bytes of the format.
        expected: u64,
        /// Bytes on disk.
        got: u64,
        /// A hint for the user.
        hint: &'static str,
    },
    /// A file's header says something else than the format demands.
    #[error("{} has the wrong {what}: expected {expected}, got {got}; {hint}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The field of the header.
        what: &'static str,
        /// The value that the format requires.
        expected: u32,
        /// The value in the file.
        got: u32,
        /// A hint for the user.
        hint: &'static str,
    },
    /// A label that the data set does not have.
    #[error("sample {sample} has the label {got}, expected 0 to 9; {hint}")]
    Label {
        /// File and number of the sample.
        sample: String,
        /// The label.
        got: u8,
        /// A hint for the user.
        hint: &'static str,
    },
    /// The reader failed although the files passed the checks.
    #[error("cannot read the data set in {}", folder.display())]
    Reader {
        /// Folder of the data set.
        folder: PathBuf,
        /// The reader's reason.
        source: candle_core::Error,
    },
}
