//! Labeled images of one size in memory, in the bytes in which they were stored.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use candle_datasets::vision::Dataset;
use moco_ingest::{EncodedSample, IngestError, Payload, SampleKey, Split};

use crate::error::DatasetsError;

/// Both data sets have ten classes.
pub(crate) const N_CLASSES: u32 = 10;
/// Images converted at once; candle copies what it hands out.
const CHUNK: usize = 1000;

/// Images of `[channels, size, size]`, u8, with their labels.
pub(crate) struct Images {
    /// Height and width.
    pub(crate) size: usize,
    /// 1 or 3.
    pub(crate) n_channels: usize,
    pub(crate) planes: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    /// Name of the file that holds a sample, and its number there.
    pub(crate) place: fn(u64) -> SampleKey,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("n_samples", &self.labels.len()).finish_non_exhaustive()
    }
}

impl Images {
    /// The images of one split of what a reader of candle-datasets gave.
    pub(crate) fn of_split(
        data: Dataset,
        split: Split,
        size: usize,
        n_channels: usize,
        place: fn(u64) -> SampleKey,
    ) -> candle_core::Result<Self> {
        let (images, labels) = match split {
            Split::Train => (data.train_images, data.train_labels),
            Split::Test => (data.test_images, data.test_labels),
        };
        Ok(Self { size, n_channels, planes: to_bytes(&images)?, labels: labels.to_vec1()?, place })
    }

    pub(crate) fn len(&self) -> u64 {
        self.labels.len() as u64
    }

    pub(crate) fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        let sample_idx = usize::try_from(sample_index).ok();
        let label = sample_idx.and_then(|sample_idx| self.labels.get(sample_idx));
        let n_samples = self.len();
        let out_of_range = IngestError::SampleIndex { sample_index, n_samples };
        label.map(|label| Some(u32::from(*label))).ok_or(out_of_range)
    }

    pub(crate) fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let n_samples = self.len();
        let out_of_range = IngestError::SampleIndex { sample_index, n_samples };
        let n_bytes = self.n_channels * self.size * self.size;
        let sample = usize::try_from(sample_index).ok().filter(|_| sample_index < n_samples);
        let Some(sample_idx) = sample else { return Err(out_of_range) };
        let planes = &self.planes[sample_idx * n_bytes..(sample_idx + 1) * n_bytes];
        #[expect(clippy::cast_possible_truncation, reason = "28 or 32")]
        let size = self.size as u32;
        let pixels = interleave(planes, self.n_channels);
        Ok(EncodedSample {
            key: (self.place)(sample_index),
            sample_index,
            payload: Payload::Rgb { width: size, height: size, pixels },
        })
    }

    /// Refuses a label that the data set does not have.
    pub(crate) fn checked(self, hint: &'static str) -> Result<Self, DatasetsError> {
        match (0_u64..).zip(&self.labels).find(|(_, label)| u32::from(**label) >= N_CLASSES) {
            Some((sample_index, label)) => {
                let sample = (self.place)(sample_index).to_string();
                Err(DatasetsError::Label { sample, got: *label, hint })
            }
            None => Ok(self),
        }
    }
}

/// A reader of candle-datasets failed on files that had looked right.
pub(crate) fn reader_failed(root: &Path, source: candle_core::Error) -> DatasetsError {
    DatasetsError::Reader { folder: root.to_owned(), source }
}

/// `[channels, pixels]` to `[pixels, 3]`; a single channel serves as all three.
fn interleave(planes: &[u8], n_channels: usize) -> Vec<u8> {
    let n_pixels = planes.len() / n_channels;
    let channel = |c: usize| c.min(n_channels - 1) * n_pixels;
    (0..n_pixels).flat_map(|pixel| [0, 1, 2].map(|c| planes[channel(c) + pixel])).collect()
}

/// The bytes that a reader divided by 255. `images`: any shape, f32, on the CPU.
fn to_bytes(images: &Tensor) -> candle_core::Result<Vec<u8>> {
    let n = images.dim(0)?;
    let mut bytes = Vec::with_capacity(images.elem_count());
    for start in (0..n).step_by(CHUNK) {
        let chunk = images.narrow(0, start, CHUNK.min(n - start))?.flatten_all()?;
        bytes.extend(chunk.to_vec1::<f32>()?.into_iter().map(to_byte));
    }
    Ok(bytes)
}

fn to_byte(value: f32) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let byte = (value * 255.0).round() as u8;
    byte
}

/// The length of a file that must exist.
pub(crate) fn file_bytes(path: &Path, hint: &'static str) -> Result<u64, DatasetsError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(|source| {
        let path = PathBuf::from(path);
        match source.kind() {
            io::ErrorKind::NotFound => DatasetsError::FileMissing { path, hint },
            _ => DatasetsError::Io { path, source },
        }
    })
}

/// Refuses a file of another length.
pub(crate) fn check_bytes(
    path: &Path,
    expected: u64,
    hint: &'static str,
) -> Result<(), DatasetsError> {
    let got = file_bytes(path, hint)?;
    if got == expected {
        Ok(())
    } else {
        Err(DatasetsError::FileSize { path: path.to_owned(), expected, got, hint })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn each_byte_survives_the_readers_division() {
        let all: Vec<u8> = (0..=255).collect();
        let tensor = Tensor::from_vec(all.clone(), (256, 1), &Device::Cpu).unwrap();
        // The expression of candle-datasets.
        let scaled = (tensor.to_dtype(DType::F32).unwrap() / 255.).unwrap();
        assert_eq!(to_bytes(&scaled).unwrap(), all);
    }

    #[test]
    fn chunks_are_joined_in_order() {
        let values: Vec<u8> = (0..2501_u32).map(|i| (i % 251) as u8).collect();
        let tensor = Tensor::from_vec(values.clone(), 2501, &Device::Cpu).unwrap();
        let scaled = (tensor.to_dtype(DType::F32).unwrap() / 255.).unwrap();
        assert_eq!(to_bytes(&scaled).unwrap(), values);
    }

    #[test]
    fn planes_become_pixels() {
        assert_eq!(interleave(&[1, 2, 10, 20, 100, 200], 3), [1, 10, 100, 2, 20, 200]);
        assert_eq!(interleave(&[1, 2], 1), [1, 1, 1, 2, 2, 2]);
    }
}
