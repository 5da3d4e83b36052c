//! Advice for whoever has a shard that is missing or damaged.

use std::fmt;

/// How a user gets a sound copy of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The data set comes from a generator of this workspace.
    Regenerate,
    /// The data set was downloaded from an address that its manifest names.
    Download,
    /// The data set is on a store.
    Upload,
    /// Nothing says where another copy is, or another copy would be the same.
    Remake,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regenerate => "delete it, and `pretrain` draws it again",
            Self::Download => "download it again",
            Self::Upload => "upload it again",
            Self::Remake => "make it again, or restore it from a copy",
        })
    }
}

/// The advice where there is no shard at all.
pub(crate) fn missing_hint(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Regenerate => "`pretrain` draws it",
        Remedy::Upload => "upload it",
        Remedy::Download => "download it, or correct the data folder",
        Remedy::Remake => "restore it, or correct the data folder",
    }
}
