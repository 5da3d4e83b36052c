//! Errors of a feed.

use std::error::Error;

use moco_augment::AugmentError;
use moco_ingest::{BadSample, IngestError};
use moco_ops::OpError;
use moco_pipeline::PipelineError;

/// A feed ended early, or could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// A stage failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A batch cannot become the encoder's input.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A sample cannot be read, or the order of samples is not possible.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// An image cannot become a view.
    #[error("image {key}: {source}")]
    Image {
        /// The location of the image.
        key: String,
        /// The reason.
        source: AugmentError,
    },
    /// Nothing that was tried can take the place of a bad sample.
    #[error(
        "no substitute for a bad sample at position {position}: {attempts} draws gave {n_bad_samples} \
         bad samples; the last one was {last}; check the data as a whole"
    )]
    NoSubstitute {
        /// The place in the order of the run.
        position: u64,
        /// Draws.
        attempts: u32,
        /// Distinct samples that could not be used.
        n_bad_samples: usize,
        /// The last of them.
        last: BadSample,
    },
    /// The cache has no room for the windows of the order.
    #[error(
        "data.window_shards = {window_shards} mixes {} shards at a time, but data.cache_bytes has room for \
         windows of at most {limit}; {}raise data.cache_bytes",
        if *window_shards == 0 { format!("all {n_shards}") } else { window_shards.to_string() },
        if *limit == 0 { "" } else { "choose from 1 to that, or " }
    )]
    Window {
        /// As it was set; 0 = all.
        window_shards: usize,
        /// Shards of the data set.
        n_shards: usize,
        /// The most that a window may have.
        limit: usize,
    },
}

impl FeedError {
    /// The image that is at fault, if it is only one, so that another can take its place; the caller says
    /// which number it has.
    #[must_use]
    pub fn bad_sample(&self, sample_index: u64) -> Option<BadSample> {
        match self {
            Self::Image { key, source } => {
                Some(BadSample { sample_index, path: key.clone(), reason: with_causes(source) })
            }
            Self::Ingest(error) => error.bad_sample(sample_index),
            _ => None,
        }
    }
}

/// The error with all its causes, in one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Transparent errors have the text of their source, and some others do too.
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    reason
}
