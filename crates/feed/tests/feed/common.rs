//! A data set in memory whose bad images are known, and feeds of it.

use std::path::PathBuf;
use std::sync::Arc;

use image::codecs::jpeg::JpegEncoder;
use moco_augment::{Augmentation, Exif, Recipe, RecipeConfig, RecipeKind};
use moco_feed::{
    DeviceBatch, DeviceBatches, FinishOn, InputPlan, Pairing, Placement, TrainingOrder, ViewStages,
    WorkerPlan,
};
use moco_ingest::{
    EncodedSample, IngestError, OnBadSample, Payload, Remedy, SampleKey, Sampler, Source,
};
use moco_rng::Seed;

pub(crate) const SEED: Seed = Seed(11);
pub(crate) const BATCH_SIZE: usize = 4;
pub(crate) const SKIP: OnBadSample = OnBadSample::Skip { budget: 1 };
const IMAGE_SIZE: u32 = 2;

/// The fault of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    CutJpeg,
    NoImage,
    Empty,
    /// Not only the image's own: that of all others too.
    NoShard,
}

/// Images that differ from each other; a third of them are JPEG files.
#[derive(Clone)]
pub(crate) struct Images {
    pub(crate) n: u64,
    pub(crate) flaw: fn(u64) -> Flaw,
}

/// Bad ones of each kind.
pub(crate) fn some_flaws(sample_index: u64) -> Flaw {
    match sample_index % 20 {
        3 => Flaw::CutJpeg,
        8 => Flaw::NoImage,
        17 => Flaw::Empty,
        _ => Flaw::None,
    }
}

pub(crate) fn pixels(sample_index: u64) -> Vec<u8> {
    blake3::hash(&sample_index.to_le_bytes()).as_bytes()[..27].to_vec()
}

fn jpeg(sample_index: u64) -> Vec<u8> {
    let mut file = Vec::new();
    let color = image::ExtendedColorType::Rgb8;
    JpegEncoder::new(&mut file).encode(&pixels(sample_index), 3, 3, color).unwrap();
    file
}

impl Source for Images {
    fn len(&self) -> u64 {
        self.n
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let shard = PathBuf::from("train-0.tar");
        let key = format!("{sample_index:06}");
        let payload = match (self.flaw)(sample_index) {
            Flaw::CutJpeg => {
                let file = jpeg(sample_index);
                Payload::Encoded(file[..file.len() - 20].to_vec())
            }
            Flaw::NoImage => Payload::Encoded(b"<html>404</html>".to_vec()),
            Flaw::Empty => return Err(IngestError::ImageEmpty { shard, key, offset: 512 }),
            Flaw::NoShard => {
                return Err(IngestError::ShardMissing { shard, remedy: Remedy::Download });
            }
            Flaw::None if sample_index.is_multiple_of(3) => Payload::Encoded(jpeg(sample_index)),
            Flaw::None => Payload::Rgb { width: 3, height: 3, pixels: pixels(sample_index) },
        };
        let key = SampleKey { shard: "train-0.tar".into(), name: key };
        Ok(EncodedSample { key, sample_index, payload })
    }

    fn label(&self, _: u64) -> Result<Option<u32>, IngestError> {
        Ok(None)
    }

    fn n_classes(&self) -> Option<u32> {
        None
    }
}

pub(crate) fn recipe() -> Arc<dyn Augmentation> {
    let (image_size, crop_scale) = (IMAGE_SIZE, (0.2, 1.0));
    Arc::new(Recipe::new(RecipeConfig { image_size, crop_scale, kind: RecipeKind::V2 }).unwrap())
}

pub(crate) fn plain(n: u64) -> Sampler {
    Sampler::new(SEED, n, BATCH_SIZE as u64).unwrap()
}

/// The feed of an order from a position on.
pub(crate) fn open(
    images: &Images,
    sampler: &Sampler,
    position: u64,
    workers: usize,
    on_bad_sample: OnBadSample,
) -> DeviceBatches {
    let source: Arc<dyn Source> = Arc::new(images.clone());
    let sampler = sampler.clone();
    let order = TrainingOrder { sampler, position, seed: SEED, batch_size: BATCH_SIZE };
    stages(workers).training(&source, recipe(), &order, on_bad_sample).unwrap()
}

/// The stages of all feeds here, with so many readers and decoders.
pub(crate) fn stages(workers: usize) -> ViewStages {
    let (mean, std) = ([0.0; 3], [1.0 / 255.0; 3]);
    let input = InputPlan {
        image_size: IMAGE_SIZE,
        mean,
        std,
        exif: Exif::Ignore,
        pairing: Pairing::SameImage,
        finish_on: FinishOn::Cpu,
    };
    let workers = WorkerPlan { readers: workers, decoders: workers };
    ViewStages { input, workers, placement: Placement::cpu() }
}

/// The pixels of a view of a batch, as they were before the upload.
pub(crate) fn view_pixels(batch: &DeviceBatch, view: usize) -> Vec<u8> {
    let numbers = batch.views[view].permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    let round = |x: f32| x.round() as u8;
    numbers.to_vec1::<f32>().unwrap().into_iter().map(round).collect()
}
