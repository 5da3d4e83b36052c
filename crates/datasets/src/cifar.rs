//! CIFAR-10 from the six files of its binary version.

use std::path::Path;

use moco_ingest::{DataDigest, EncodedSample, IngestError, SampleKey, Source, Split};

use crate::{
    error::DatasetsError,
    images::{Images, N_CLASSES, check_bytes, reader_failed},
};

const HINT: &str = "the folder must hold the six .bin files of the binary version of CIFAR-10 (cifar-10-binary.tar.gz)";
const SAMPLES_PER_FILE: u64 = 10_000;
/// A label and 32 × 32 pixels of three channels each.
const FILE_BYTES: u64 = SAMPLES_PER_FILE * (1 + 3 * 32 * 32);

/// CIFAR-10, 32 × 32 pixels, 10 classes.
///
/// Opening needs 1.3 GB for a moment, because candle's reader holds all images as f32 twice.
#[derive(Debug)]
pub struct Cifar10 {
    images: Images,
}

impl Cifar10 {
    /// Opens a split; `root` holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, all of
    /// which are read.
    ///
    /// # Errors
    /// If a file is missing, has another length or holds a label above 9.
    pub fn open(root: &Path, split: Split) -> Result<Self, DatasetsError> {
        for batch in 0..6 {
            check_bytes(&root.join(file_name(batch)), FILE_BYTES, HINT)?;
        }
        let data = candle_datasets::vision::cifar::load_dir(root);
        let data = data.map_err(|source| reader_failed(root, source))?;
        let place = match split {
            Split::Train => train_place,
            Split::Test => test_place,
        };
        let images = Images::of_split(data, split, 32, 3, place)
            .map_err(|source| reader_failed(root, source))?;
        Ok(Self { images: images.checked(HINT)? })
    }
}

impl Source for Cifar10 {
    fn len(&self) -> u64 {
        self.images.len()
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        self.images.read(sample_index)
    }

    fn label(&self, sample_index: u64) -> Result<Option<u32>, IngestError> {
        self.images.label(sample_index)
    }

    fn digest(&self) -> Option<DataDigest> {
        Some(DataDigest::of_pixels(&self.images.planes, &self.images.labels))
    }

    fn n_classes(&self) -> Option<u32> {
        Some(N_CLASSES)
    }
}

/// `batch` 0 to 4 are the training files, 5 is the test file.
fn file_name(batch: u64) -> String {
    if batch < 5 { format!("data_batch_{}.bin", batch + 1) } else { "test_batch.bin".to_owned() }
}

fn train_place(sample_index: u64) -> SampleKey {
    let (batch, within) = (sample_index / SAMPLES_PER_FILE, sample_index % SAMPLES_PER_FILE);
    SampleKey { shard: file_name(batch), name: within.to_string() }
}

fn test_place(sample_index: u64) -> SampleKey {
    SampleKey { shard: file_name(5), name: sample_index.to_string() }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use moco_ingest::Payload;
    use tempfile::TempDir;

    use super::*;

    /// The value of a channel of a pixel of the first or last image of a file.
    fn value(batch: u64, within: u64, channel: usize, pixel: usize) -> u8 {
        let sum = batch * 31 + within + 85 * channel as u64 + 3 * pixel as u64;
        u8::try_from(sum % 256).unwrap()
    }

    /// Full-sized files whose first and last image are drawn; the rest is a hole of zeros.
    fn written() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for batch in 0..6 {
            let file = File::create(folder.path().join(file_name(batch))).unwrap();
            for within in [0, SAMPLES_PER_FILE - 1] {
                let mut record = vec![u8::try_from(batch + within % 2).unwrap()];
                for channel in 0..3 {
                    record.extend((0..1024).map(|pixel| value(batch, within, channel, pixel)));
                }
                file.write_all_at(&record, within * 3073).unwrap();
            }
        }
        folder
    }

    fn check(set: &Cifar10, sample_index: u64, batch: u64, within: u64) {
        let sample = set.read(sample_index).unwrap();
        let expected: Vec<u8> = (0..1024)
            .flat_map(|pixel| [0, 1, 2].map(|channel| value(batch, within, channel, pixel)))
            .collect();
        assert_eq!(sample.payload, Payload::Rgb { width: 32, height: 32, pixels: expected });
        assert_eq!(sample.sample_index, sample_index);
        assert_eq!(sample.key.to_string(), format!("{}/{within}", file_name(batch)));
        assert_eq!(set.label(sample_index).unwrap().map(u64::from), Some(batch + within % 2));
    }

    #[test]
    fn both_splits_give_the_stored_bytes_and_bad_labels_are_found() {
        let folder = written();
        let train = Cifar10::open(folder.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.n_classes()), (50_000, Some(10)));
        for batch in 0..5 {
            check(&train, batch * 10_000, batch, 0);
            check(&train, batch * 10_000 + 9_999, batch, 9_999);
        }
        train.label(50_000).unwrap_err();
        let message = train.read(50_000).unwrap_err().to_string();
        assert_eq!(message, "sample 50000 was asked for, but the data set has 50000");
        drop(train);

        let path = folder.path().join("test_batch.bin");
        let test = Cifar10::open(folder.path(), Split::Test).unwrap();
        assert_eq!(test.len(), 10_000);
        check(&test, 9_999, 5, 9_999);
        File::options().write(true).open(path).unwrap().write_all_at(&[10], 7 * 3073).unwrap();
        let message = Cifar10::open(folder.path(), Split::Test).unwrap_err().to_string();
        let expected = format!("sample test_batch.bin/7 has the label 10, expected 0 to 9; {HINT}");
        assert_eq!(message, expected);
    }

    #[test]
    fn missing_and_cut_files_are_named() {
        let folder = written();
        let path = folder.path().join("data_batch_3.bin");
        let message = || Cifar10::open(folder.path(), Split::Test).unwrap_err().to_string();
        File::options().write(true).open(&path).unwrap().set_len(30_729_999).unwrap();
        let expected = format!(
            "{} has the wrong size: expected 30730000 bytes, got 30729999; {HINT}",
            path.display()
        );
        assert_eq!(message(), expected);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(message(), format!("{} is missing; {HINT}", path.display()));
    }
}
