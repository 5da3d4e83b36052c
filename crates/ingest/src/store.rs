//! Where shards can be stored other than the local disk: anything that gives bytes by name and range.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::error::{IngestError, Remedy};

/// Bytes of a file, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    pub(crate) n_bytes: u64,
}

/// Which bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them, at most this many.
    All {
        /// Above this the object is refused.
        limit: u64,
    },
    /// Exactly these.
    Range {
        /// The first byte.
        offset: u64,
        /// How many; at least 1.
        n_bytes: u64,
    },
}

impl Part {
    /// The first byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::All { .. } => 0,
            Self::Range { offset, .. } => *offset,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { .. } => f.write_str("all bytes"),
            Self::Range { n_bytes, .. } => write!(f, "{n_bytes} bytes"),
        }
    }
}

/// A place that holds shards. Waiting, trying again and giving up are its own business: each call ends.
pub trait Store: fmt::Debug + Send + Sync {
    /// The name of this place in messages.
    fn address(&self) -> &str;

    /// The bytes of one part of an object.
    ///
    /// # Errors
    /// If there is no such object, or fewer bytes, or they cannot be read.
    fn read(&self, key: &str, part: Part) -> Result<Vec<u8>, IngestError>;

    /// Makes reads that wait, and all later ones, fail soon; for stores whose reads take long.
    fn close(&self) {}
}

/// A folder as a store, for instance on a disk of the network.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
    address: String,
}

impl FolderStore {
    /// The files of this folder.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), address: root.display().to_string() }
    }
}

impl Store for FolderStore {
    fn address(&self) -> &str {
        &self.address
    }

    fn read(&self, key: &str, part: Part) -> Result<Vec<u8>, IngestError> {
        let path = self.root.join(key);
        let file = open_shard(&path, Remedy::Remake)?;
        match part {
            Part::All { limit } => {
                let mut bytes = Vec::new();
                file.take(limit.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .map_err(IngestError::io("read", &path))?;
                check_limit(self, key, bytes.len() as u64, limit)?;
                Ok(bytes)
            }
            Part::Range { offset, n_bytes } => {
                read_exact(&file, &path, ByteRange { offset, n_bytes }, Remedy::Remake)
            }
        }
    }
}

/// Refuses an object that is longer than whoever reads it can use.
pub(crate) fn check_limit(
    store: &dyn Store,
    key: &str,
    got: u64,
    limit: u64,
) -> Result<(), IngestError> {
    if got <= limit {
        return Ok(());
    }
    Err(IngestError::StoreUnfit {
        store: store.address().to_owned(),
        problem: format!("{key} has {got} bytes or more, the limit is {limit}"),
    })
}

/// Opens a shard on disk.
pub(crate) fn open_shard(path: &Path, remedy: Remedy) -> Result<File, IngestError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IngestError::ShardMissing { shard: path.to_owned(), remedy },
        _ => IngestError::Io { action: "open", path: path.to_owned(), source },
    })
}

/// Reads all of a range of a file, or says how much of it there is.
pub(crate) fn read_exact(
    file: &File,
    shard: &Path,
    range: ByteRange,
    remedy: Remedy,
) -> Result<Vec<u8>, IngestError> {
    let ByteRange { offset, n_bytes: needed } = range;
    let n_bytes = usize::try_from(needed).unwrap_or(usize::MAX);
    let got = file.metadata().map_err(IngestError::io("inspect", shard))?.len();
    let got = got.saturating_sub(offset);
    let cut =
        || IngestError::ShardTruncated { shard: shard.to_owned(), offset, needed, got, remedy };
    // Looked at first, so that an absurd length allocates nothing.
    if got < needed {
        return Err(cut());
    }
    let mut bytes = vec![0; n_bytes];
    file.read_exact_at(&mut bytes, offset).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => cut(),
        _ => IngestError::Io { action: "read", path: shard.to_owned(), source },
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_parts_and_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.tar"), b"0123456789").unwrap();
        let store = FolderStore::new(folder.path());
        let place = format!("{}/", folder.path().display());
        let read = |key, part| {
            store.read(key, part).map_err(|error| error.to_string().replace(&place, ""))
        };
        let range = |offset, n_bytes| Part::Range { offset, n_bytes };
        assert_eq!(read("a.tar", range(3, 4)).unwrap(), b"3456");
        assert_eq!(read("a.tar", Part::All { limit: 10 }).unwrap(), b"0123456789");
        let cases = [
            (
                "a.tar",
                range(8, 3),
                "shard a.tar is truncated: 3 bytes needed at offset 8, got 2; m",
            ),
            ("a.tar", range(12, u64::MAX), "shard a.tar is truncated: 18446744073709551615 bytes"),
            ("b.tar", range(0, 1), "shard b.tar is missing; restore it, or"),
        ];
        for (key, part, expected) in cases {
            let message = read(key, part).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
        let message = read("a.tar", Part::All { limit: 9 }).unwrap_err();
        assert!(message.ends_with("a.tar has 10 bytes or more, the limit is 9"), "{message}");
    }
}
