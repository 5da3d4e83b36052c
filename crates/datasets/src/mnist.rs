//! MNIST from its four idx files.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use moco_ingest::{DataDigest, EncodedSample, IngestError, SampleKey, Source, Split};

use crate::{
    error::DatasetsError,
    images::{Images, N_CLASSES, check_bytes, file_bytes, reader_failed},
};

const HINT: &str = "the folder must hold the four idx files of MNIST, unpacked (gunzip *.gz)";
const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";
const IMAGES_MAGIC: u32 = 2051;
const LABELS_MAGIC: u32 = 2049;
const SIZE: u32 = 28;

/// MNIST, 28 × 28 pixels, 10 classes; the gray value serves as red, green and blue.
#[derive(Debug)]
pub struct Mnist {
    images: Images,
}

impl Mnist {
    /// Opens a split; `root` holds the four idx files under their usual names, all of which are read.
    ///
    /// # Errors
    /// If a file is missing, has another format or length, or holds a label above 9.
    pub fn open(root: &Path, split: Split) -> Result<Self, DatasetsError> {
        for (images, labels) in [(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)] {
            check_pair(&root.join(images), &root.join(labels))?;
        }
        let data = candle_datasets::vision::mnist::load_dir(root);
        let data = data.map_err(|source| reader_failed(root, source))?;
        let place = match split {
            Split::Train => train_place,
            Split::Test => test_place,
        };
        let images = Images::of_split(data, split, SIZE as usize, 1, place)
            .map_err(|source| reader_failed(root, source))?;
        Ok(Self { images: images.checked(HINT)? })
    }
}

impl Source for Mnist {
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

fn train_place(sample_index: u64) -> SampleKey {
    SampleKey { shard: TRAIN_IMAGES.to_owned(), name: sample_index.to_string() }
}

fn test_place(sample_index: u64) -> SampleKey {
    SampleKey { shard: TEST_IMAGES.to_owned(), name: sample_index.to_string() }
}

/// Compares the headers and lengths of an image file and its label file with the format.
fn check_pair(images: &Path, labels: &Path) -> Result<(), DatasetsError> {
    let [magic, n_images, rows, columns] = header(images)?;
    demand(images, "magic number", IMAGES_MAGIC, magic)?;
    demand(images, "number of rows", SIZE, rows)?;
    demand(images, "number of columns", SIZE, columns)?;
    check_bytes(images, 16 + u64::from(n_images) * u64::from(SIZE * SIZE), HINT)?;
    let [magic, n_labels] = header(labels)?;
    demand(labels, "magic number", LABELS_MAGIC, magic)?;
    demand(labels, "number of labels", n_images, n_labels)?;
    check_bytes(labels, 8 + u64::from(n_labels), HINT)
}

/// The first `N` numbers of an idx file, which are big-endian.
fn header<const N: usize>(path: &Path) -> Result<[u32; N], DatasetsError> {
    let (expected, got) = (4 * N as u64, file_bytes(path, HINT)?);
    if got < expected {
        return Err(DatasetsError::FileSize { path: path.to_owned(), expected, got, hint: HINT });
    }
    let io = |source| DatasetsError::Io { path: PathBuf::from(path), source };
    let mut file = File::open(path).map_err(io)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).map_err(io)?;
        *number = u32::from_be_bytes(bytes);
    }
    Ok(numbers)
}

fn demand(path: &Path, what: &'static str, expected: u32, got: u32) -> Result<(), DatasetsError> {
    if expected == got {
        return Ok(());
    }
    Err(DatasetsError::Header { path: path.to_owned(), what, expected, got, hint: HINT })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use moco_ingest::Payload;
    use tempfile::TempDir;

    use super::*;

    fn gray(split: u32, sample: u32, pixel: u32) -> u8 {
        u8::try_from((split * 100 + sample * 50 + pixel) % 256).unwrap()
    }

    /// Three training and two test images.
    fn written() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let files = [(0, 3, TRAIN_IMAGES, TRAIN_LABELS), (1, 2, TEST_IMAGES, TEST_LABELS)];
        for (split, n, images, labels) in files {
            let header = |numbers: &[u32]| -> Vec<u8> {
                numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
            };
            let mut bytes = header(&[2051, n, 28, 28]);
            for sample in 0..n {
                bytes.extend((0..784).map(|pixel| gray(split, sample, pixel)));
            }
            fs::write(folder.path().join(images), bytes).unwrap();
            let mut bytes = header(&[2049, n]);
            bytes.extend((0..n).map(|sample| u8::try_from(9 - sample).unwrap()));
            fs::write(folder.path().join(labels), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn both_splits_give_the_stored_bytes_three_times() {
        let folder = written();
        for (number, split, n, file) in
            [(0, Split::Train, 3, TRAIN_IMAGES), (1, Split::Test, 2, TEST_IMAGES)]
        {
            let set = Mnist::open(folder.path(), split).unwrap();
            assert_eq!((set.len(), set.n_classes()), (u64::from(n), Some(10)));
            for i in 0..n {
                let sample = set.read(u64::from(i)).unwrap();
                let expected: Vec<u8> =
                    (0..784).flat_map(|pixel| [gray(number, i, pixel); 3]).collect();
                assert_eq!(
                    sample.payload,
                    Payload::Rgb { width: 28, height: 28, pixels: expected }
                );
                assert_eq!(sample.key.to_string(), format!("{file}/{i}"));
                assert_eq!(set.label(u64::from(i)).unwrap(), Some(9 - i));
            }
            let message = set.read(u64::from(n)).unwrap_err().to_string();
            assert_eq!(message, format!("sample {n} was asked for, but the data set has {n}"));
        }
    }

    /// Overwrites bytes of a file, or cuts it at `offset` where there are none.
    fn message_after(file: &str, offset: usize, bytes: &[u8]) -> String {
        let folder = written();
        let path = folder.path().join(file);
        let mut content = fs::read(&path).unwrap();
        if bytes.is_empty() {
            content.truncate(offset);
        } else {
            content[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        fs::write(&path, content).unwrap();
        let message = Mnist::open(folder.path(), Split::Train).unwrap_err().to_string();
        message.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn files_of_another_format_are_named() {
        let cases: [(&str, usize, &[u8], &str); 9] = [
            (
                TRAIN_IMAGES,
                0,
                &[0x1f, 0x8b, 8, 0],
                "train-images-idx3-ubyte has the wrong magic number: expected 2051, got 529205248",
            ),
            (
                TEST_IMAGES,
                8,
                &[0, 0, 0, 27],
                "t10k-images-idx3-ubyte has the wrong number of rows: expected 28, got 27",
            ),
            (
                TEST_IMAGES,
                12,
                &[0, 0, 0, 29],
                "t10k-images-idx3-ubyte has the wrong number of columns: expected 28, got 29",
            ),
            (
                TRAIN_IMAGES,
                4,
                &[255; 4],
                "train-images-idx3-ubyte has the wrong size: expected 3367254359296 bytes, got 2368",
            ),
            (
                TRAIN_IMAGES,
                2367,
                &[],
                "train-images-idx3-ubyte has the wrong size: expected 2368 bytes, got 2367",
            ),
            (
                TRAIN_IMAGES,
                9,
                &[],
                "train-images-idx3-ubyte has the wrong size: expected 16 bytes, got 9",
            ),
            (
                TEST_LABELS,
                3,
                &[3],
                "t10k-labels-idx1-ubyte has the wrong magic number: expected 2049, got 2051",
            ),
            (
                TEST_LABELS,
                7,
                &[1],
                "t10k-labels-idx1-ubyte has the wrong number of labels: expected 2, got 1",
            ),
            (
                TRAIN_LABELS,
                10,
                &[],
                "train-labels-idx1-ubyte has the wrong size: expected 11 bytes, got 10",
            ),
        ];
        for (file, offset, bytes, expected) in cases {
            assert_eq!(message_after(file, offset, bytes), format!("{expected}; {HINT}"));
        }
    }

    #[test]
    fn bad_labels_and_missing_files_are_named() {
        let message = message_after(TRAIN_LABELS, 9, &[200]);
        let expected = "sample train-images-idx3-ubyte/1 has the label 200, expected 0 to 9; ";
        assert_eq!(message, format!("{expected}{HINT}"));
        let folder = written();
        let path = folder.path().join(TEST_LABELS);
        fs::remove_file(&path).unwrap();
        let message = Mnist::open(folder.path(), Split::Train).unwrap_err().to_string();
        assert_eq!(message, format!("{} is missing; {HINT}", path.display()));
    }
}
