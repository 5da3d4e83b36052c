//! Which errors are the fault of one image.

use std::path::Path;

use crate::{bad_sample::BadSample, error::IngestError};

impl IngestError {
    /// Whether one image is at fault and the samples beside it can still be read.
    #[must_use]
    pub fn is_of_one_sample(&self) -> bool {
        self.bad_sample(0).is_some()
    }

    /// The image that is at fault, if it is only one; the caller says which number it has.
    #[must_use]
    pub fn bad_sample(&self, sample_index: u64) -> Option<BadSample> {
        let (path, reason) = match self {
            Self::ImageEmpty { shard, key, .. } => {
                let shard = Path::new(shard.file_name().unwrap_or(shard.as_os_str()));
                (format!("{}/{key}", shard.display()), "it has no bytes".to_owned())
            }
            Self::ImageSize { path, got, limit } => {
                let reason = format!("it has {got} bytes, expected 1 to {limit}");
                (path.display().to_string(), reason)
            }
            Self::ImageFile { path, problem } => (path.display().to_string(), problem.clone()),
            _ => return None,
        };
        Some(BadSample { sample_index, path, reason })
    }
}
