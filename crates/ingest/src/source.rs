//! The trait of everything that returns samples by index, and what a sample is.

use std::fmt;

use crate::digest::DataDigest;
use crate::error::IngestError;

/// Random access to the samples of one split of a data set.
pub trait Source: Send + Sync {
    /// Number of samples.
    fn len(&self) -> u64;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample with this index.
    ///
    /// # Errors
    /// If the index is out of range or the storage fails.
    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError>;

    /// The class of a sample, without reading its image; `None` where it has none.
    ///
    /// # Errors
    /// If the index is out of range or the storage fails.
    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError>;

    /// What the split is known by, for a run to notice that it changed; `None` where nothing can be said
    /// without reading every image.
    fn digest(&self) -> Option<DataDigest> {
        None
    }

    /// Number of classes; `None` where the data set is not labeled.
    fn n_classes(&self) -> Option<u32>;

    /// Names of the classes in the order of the labels; none where classes have only numbers. Labels of two
    /// sources with names mean the same class only if its name is the same.
    fn class_names(&self) -> &[String] {
        &[]
    }

    /// What lies beside the samples and is none of them, in words with counts; `None` where nothing does.
    fn left_out(&self) -> Option<String> {
        None
    }

    /// Samples of each part that is read faster as a whole, for [`crate::Sampler::windowed`].
    fn shard_sizes(&self) -> Vec<u64> {
        vec![self.len()]
    }

    /// The most parts that a window of the order may have so that what is fetched ahead has room.
    fn max_window_shards(&self) -> usize {
        usize::MAX
    }

    /// Says that samples of this one's shard are read soon. What fetches ahead starts to do so, and makes
    /// the caller wait while it has enough to do; a shard that cannot be fetched fails when it is read.
    ///
    /// # Errors
    /// If the index is out of range or what fetches ahead has ended.
    fn will_read(&self, sample_index: u64) -> Result<(), IngestError> {
        let n_samples = self.len();
        if sample_index < n_samples {
            return Ok(());
        }
        Err(IngestError::SampleIndex { sample_index, n_samples })
    }
}

/// One image as it is stored, with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSample {
    /// The location of the image.
    pub key: SampleKey,
    /// Its index within the split.
    pub sample_index: u64,
    /// The image.
    pub payload: Payload,
}

/// An image as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// An image file.
    Encoded(Vec<u8>),
    /// Raw pixels, `[height, width, 3]`, u8, red first.
    Rgb {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// `height * width * 3` bytes.
        pixels: Vec<u8>,
    },
}

/// Where a sample is: enough for a person to find the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampleKey {
    /// File name of the shard, or the path of the folder as it was given.
    pub shard: String,
    /// Name of the sample within the shard.
    pub name: String,
}

impl fmt::Display for SampleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard, self.name)
    }
}
