//! Files that appear under their name only when all their bytes are on the disk.

use std::{
    fs::{self, File},
    path::Path,
};

use crate::error::IngestError;

/// Syncs `file`, which is at `temporary`, gives it its final name and syncs the folder.
pub(crate) fn publish(file: &File, temporary: &Path, path: &Path) -> Result<(), IngestError> {
    file.sync_all().map_err(IngestError::io("sync", temporary))?;
    fs::rename(temporary, path).map_err(IngestError::io("rename to", path))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Without this a power cut could bring the old name back.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(IngestError::io("sync", folder))
}
