//! An image that cannot be used.

use std::fmt;

/// An image that cannot be used: one that is missing, empty, too large or does not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    /// Its number in the split.
    pub sample_index: u64,
    /// Where it is: a path as the folder was given, or the shard's name and the sample's.
    pub path: String,
    /// Why it cannot be used.
    pub reason: String,
}

impl fmt::Display for BadSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image {}: {}", self.path, self.reason)
    }
}
