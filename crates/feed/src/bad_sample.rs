//! A training image that cannot be used.

use std::error::Error;
use std::fmt;

/// A training image that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    /// Its number in the split.
    pub sample_index: u64,
    /// The reason; names the image.
    pub reason: String,
}

impl fmt::Display for BadSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl BadSample {
    /// The reason is the error with all its causes.
    pub(crate) fn new(sample_index: u64, error: &dyn Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors have their source in their own text.
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            cause = error.source();
        }
        Self { sample_index, reason }
    }
}
