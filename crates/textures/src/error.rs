//! Errors while the data set is written.

use moco_ingest::IngestError;
use moco_pipeline::PipelineError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TexturesError {
    /// A shard or the manifest cannot be written.
    #[error("cannot write the texture data")]
    Write(#[from] IngestError),
    /// A drawing thread failed or could not start.
    #[error("cannot draw the textures")]
    Draw(#[from] PipelineError),
}
