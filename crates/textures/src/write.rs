//! Draws the data set on several threads and writes it as shards with a manifest.

use std::{ops::Range, path::Path};

use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use moco_ingest::{ImageFormat, Manifest, ShardEntry, ShardWriter, Split, shard_file};
use moco_pipeline::{Pipeline, StageError};
use moco_rng::Seed;

use crate::{
    error::TexturesError,
    pattern::CLASSES,
    render::{SIZE, render},
};

/// Name of the manifest within the folder of the shards.
pub const MANIFEST_FILE: &str = "manifest.toml";

/// Held-out images start here, so that no number of training images reaches them.
const FIRST_TEST_INDEX: u64 = 1 << 32;
const SAMPLES_PER_SHARD: u64 = 1000;
/// At this quality the encoder's loss is well below the images' own noise.
const JPEG_QUALITY: u8 = 95;
/// Images that may wait in each lane; 4 KB each.
const LANE_CAPACITY: usize = 32;

/// Which data set is written and with how many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TexturesConfig {
    /// Seed of all images.
    pub seed: Seed,
    /// Number of training images.
    pub n_train: u32,
    /// Number of held-out images.
    pub n_test: u32,
    /// Drawing threads; the bytes do not depend on it.
    pub n_workers: usize,
}

impl TexturesConfig {
    /// The data set of `data-manifests/textures.toml`.
    #[must_use]
    pub fn standard(n_workers: usize) -> Self {
        Self { seed: Seed(0), n_train: 5000, n_test: 1000, n_workers }
    }
}

/// Writes the shards and then [`MANIFEST_FILE`] into `folder`.
///
/// `progress` is called with the number of images written and their total, after each image.
///
/// # Errors
/// If the folder cannot be written, or the threads cannot start.
pub fn write(
    folder: &Path,
    config: &TexturesConfig,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, TexturesError> {
    let (n_train, n_test) = (u64::from(config.n_train), u64::from(config.n_test));
    let total = n_train + n_test;
    let mut done = 0;
    let mut count = || {
        done += 1;
        progress(done, total);
    };
    let train = write_split(folder, config, Split::Train, 0..n_train, &mut count)?;
    let test = write_split(folder, config, Split::Test, 0..n_test, &mut count)?;
    let manifest = Manifest {
        name: "textures".to_owned(),
        generator: Some("textures".to_owned()),
        license: "MIT OR Apache-2.0".to_owned(),
        source: format!("drawn by moco-textures with seed {}", config.seed.0),
        classes: CLASSES.map(str::to_owned).to_vec(),
        train,
        test,
    };
    manifest.save(&folder.join(MANIFEST_FILE))?;
    Ok(manifest)
}

/// Writes those shards of the data set that are not in `folder`, as [`write()`] does; the others stay.
///
/// # Errors
/// If the folder cannot be written, or the threads cannot start.
pub fn write_missing(
    folder: &Path,
    config: &TexturesConfig,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TexturesError> {
    let mut missing = Vec::new();
    for (split, n) in [(Split::Train, config.n_train), (Split::Test, config.n_test)] {
        let n = u64::from(n);
        for number in 0..n.div_ceil(SAMPLES_PER_SHARD) {
            if !folder.join(shard_file(&split.to_string(), number)).exists() {
                let start = number * SAMPLES_PER_SHARD;
                missing.push((split, start..n.min(start + SAMPLES_PER_SHARD)));
            }
        }
    }
    let total = missing.iter().map(|(_, images)| images.end - images.start).sum();
    let mut done = 0;
    let mut count = || {
        done += 1;
        progress(done, total);
    };
    for (split, images) in missing {
        write_split(folder, config, split, images, &mut count)?;
    }
    Ok(())
}

/// Writes images of a split, of which the first begins a shard.
fn write_split(
    folder: &Path,
    config: &TexturesConfig,
    split: Split,
    images: Range<u64>,
    count: &mut dyn FnMut(),
) -> Result<Vec<ShardEntry>, TexturesError> {
    let (seed, n_workers) = (config.seed, config.n_workers);
    let first_index = match split {
        Split::Train => 0,
        Split::Test => FIRST_TEST_INDEX,
    };
    let mut n_written = images.start;
    let writer = ShardWriter::new(folder, &split.to_string(), SAMPLES_PER_SHARD)?;
    let mut writer = writer.first_shard(n_written / SAMPLES_PER_SHARD);
    let mut pipeline = Pipeline::new();
    let indices = images.map(move |image| Ok(first_index + image));
    let jobs = pipeline.source("index", n_workers, LANE_CAPACITY, indices)?;
    let drawn = pipeline.map("draw", jobs, LANE_CAPACITY, |_| move |index| encode(seed, index))?;
    let mut feed = pipeline.feed(drawn);
    while let Some((jpeg, label)) = feed.recv()? {
        writer.push(&format!("{n_written:06}"), ImageFormat::Jpeg, &jpeg, Some(label))?;
        n_written += 1;
        count();
    }
    Ok(writer.finish()?)
}

/// The encoder works in integers and does not subsample the colors.
fn encode(seed: Seed, index: u64) -> Result<(Vec<u8>, u32), StageError> {
    let texture = render(seed, index);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY).encode(
        &texture.pixels,
        SIZE,
        SIZE,
        ExtendedColorType::Rgb8,
    )?;
    Ok((jpeg, texture.label))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use moco_ingest::{Payload, ShardSet, Source, Verify};

    use super::*;

    fn small(n_workers: usize) -> TexturesConfig {
        TexturesConfig { seed: Seed(5), n_train: 40, n_test: 16, n_workers }
    }

    fn decoded(sample: Payload) -> Vec<u8> {
        let Payload::Encoded(jpeg) = sample else { panic!("shards hold encoded images") };
        image::load_from_memory(&jpeg).unwrap().into_rgb8().into_raw()
    }

    #[test]
    fn shards_hold_the_rendered_images_and_labels() {
        let folder = tempfile::tempdir().unwrap();
        let mut reports = Vec::new();
        let manifest =
            write(folder.path(), &small(2), &mut |done, total| reports.push((done, total)))
                .unwrap();
        assert_eq!(reports, (1..=56).map(|done| (done, 56)).collect::<Vec<_>>());
        assert_eq!(Manifest::load(&folder.path().join(MANIFEST_FILE)).unwrap(), manifest);
        for (split, first, n) in [(Split::Train, 0, 40), (Split::Test, FIRST_TEST_INDEX, 16)] {
            let set = ShardSet::open(folder.path(), &manifest, split, Verify::Checksums).unwrap();
            assert_eq!((set.len(), set.n_classes()), (n, Some(16)));
            for i in 0..n {
                let expected = render(Seed(5), first + i);
                let pixels = decoded(set.read(i).unwrap().payload);
                assert_eq!(set.label(i).unwrap(), Some(expected.label));
                let error = pixels.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b));
                let (sum, largest) =
                    error.fold((0, 0), |(sum, max), e| (sum + u32::from(e), max.max(e)));
                // Quality 95 costs some 3 levels a byte here; another image is some 60 away.
                assert!(sum < 6912 * 5 && largest < 40, "sum {sum}, largest {largest}");
            }
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_workers() {
        let [one, three] = [1, 3].map(|n_workers| {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &small(n_workers), &mut |_, _| ()).unwrap();
            ["train-000000.tar", "test-000000.tar", MANIFEST_FILE]
                .map(|file| fs::read(folder.path().join(file)).unwrap())
        });
        assert!(one == three);
    }

    #[test]
    fn shards_that_are_missing_come_again_and_the_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let config = TexturesConfig { n_train: 1030, ..small(2) };
        write(folder.path(), &config, &mut |_, _| ()).unwrap();
        let at = |name: &str| folder.path().join(name);
        let [last, test] =
            ["train-000001.tar", "test-000000.tar"].map(|name| fs::read(at(name)).unwrap());
        fs::write(at("train-000000.tar"), "of somebody").unwrap();
        fs::write(at("train-000001.tar.partial"), "cut off").unwrap();
        for name in ["train-000001.tar", "test-000000.tar"] {
            fs::remove_file(at(name)).unwrap();
        }
        let mut reports = Vec::new();
        write_missing(folder.path(), &config, &mut |done, total| reports.push((done, total)))
            .unwrap();
        assert_eq!(reports, (1..=46).map(|done| (done, 46)).collect::<Vec<_>>());
        assert!(fs::read(at("train-000001.tar")).unwrap() == last);
        assert!(fs::read(at("test-000000.tar")).unwrap() == test);
        assert_eq!(fs::read(at("train-000000.tar")).unwrap(), b"of somebody");
        assert!(!at("train-000001.tar.partial").exists());
    }

    /// The committed manifest is what runs are checked against; this notices a change of any bit.
    #[test]
    fn the_held_out_shard_is_the_committed_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests/textures.toml");
        let committed = Manifest::load(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = TexturesConfig::standard(2);
        let entries =
            write_split(folder.path(), &config, Split::Test, 0..1000, &mut || ()).unwrap();
        assert_eq!(committed.test, entries);
    }

    #[test]
    fn failures_name_their_cause() {
        let folder = tempfile::tempdir().unwrap();
        let chain = |error: TexturesError| {
            format!("{error}: {}", std::error::Error::source(&error).unwrap())
        };
        let error = write(folder.path(), &small(0), &mut |_, _| ()).unwrap_err();
        assert_eq!(
            chain(error),
            "cannot draw the textures: stage `index`: expected a number of lanes of at least 1, got 0"
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = write(&file, &small(1), &mut |_, _| ()).unwrap_err();
        let expected = format!("cannot write the texture data: cannot create {}", file.display());
        assert_eq!(chain(error), expected);
    }
}
