//! Steps on images that come through the pipeline of a run: sampled, batched, uploaded and normalized.
//! They are decoded already and their views are themselves, so what it shows is the way of the pixels.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use moco::{Batch, Moco};
use moco_augment::{AugmentError, Augmentation, Exif, RgbImage};
use moco_feed::{
    DeviceBatches, FinishOn, InputPlan, Pairing, Placement, TrainingOrder, ViewStages, WorkerPlan,
};
use moco_ingest::{EncodedSample, IngestError, OnBadSample, Payload, SampleKey, Sampler, Source};
use moco_rng::Stream;
use serde_json::{Value, json};

use super::args::Args;
use super::setup::{MEAN, SEED, STD, Setup, noise};
use super::stepper::Stepper;
use super::timing::timed;

/// Batches of different images.
const N_BATCHES: usize = 2;
const READERS: usize = 2;
/// Steps between two readings of the statistics, as a run logs them.
const READ_EVERY: u32 = 10;

/// Milliseconds a batch.
#[derive(Debug)]
pub(super) struct Feed {
    batch_size: u32,
    /// With a training step on each.
    training_ms: f64,
    /// With nothing done with it: the most that the pipeline can do.
    alone_ms: f64,
    /// The share of its time that a stage's threads work while only the pipeline runs: the busiest is
    /// what bounds it.
    busy: BTreeMap<String, f64>,
}

impl Feed {
    /// Beside the rate of steps on views that stay on the device.
    pub(super) fn json(&self, pure_images_per_second: f64) -> Value {
        let rate = |ms: f64| 1e3 * f64::from(self.batch_size) / ms;
        json!({
            "images_per_second": rate(self.training_ms),
            "alone_images_per_second": rate(self.alone_ms),
            "share": rate(self.training_ms) / pure_images_per_second,
            "busy": self.busy,
        })
    }
}

pub(super) fn measure(moco: &mut Moco, setup: &Setup, args: &Args) -> anyhow::Result<Feed> {
    let n_images = (N_BATCHES * setup.batch_size) as u64;
    let images = (0..n_images).map(|index| noise(setup.size, index, 0)).collect();
    let source: Arc<dyn Source> = Arc::new(Crops { side: args.size, images });
    let n_batches = args.blocks * args.steps;
    let ms_a_batch = |work: &mut dyn FnMut(Batch) -> anyhow::Result<()>| {
        let mut feed = feed(&source, setup, args)?;
        // The first batches wait for the threads to start.
        for _ in 0..args.warmup {
            work(next(&mut feed)?)?;
        }
        let ((), ms) =
            timed(&setup.device, || (0..n_batches).try_for_each(|_| work(next(&mut feed)?)))?;
        let busy = feed.meters().into_iter().map(|stage| (stage.stage.clone(), stage.busy_share()));
        anyhow::Ok((ms / f64::from(n_batches), busy.collect()))
    };
    let (mut stepper, mut waiting) = (Stepper::new(args), Vec::new());
    let (training_ms, _) = ms_a_batch(&mut |views| {
        waiting.push(stepper.step(moco, &views)?);
        if waiting.len() >= READ_EVERY as usize {
            for statistics in waiting.drain(..) {
                statistics.read()?;
            }
        }
        Ok(())
    })?;
    let (alone_ms, busy) = ms_a_batch(&mut |_| Ok(()))?;
    Ok(Feed { batch_size: args.batch_size, training_ms, alone_ms, busy })
}

fn next(feed: &mut DeviceBatches) -> anyhow::Result<Batch> {
    let batch = feed.recv()?.context("the feed has an end")?;
    let [im_q, im_k] = <[_; 2]>::try_from(batch.views).ok().context("two views")?;
    Ok(Batch { im_q, im_k, sample_indices: Vec::new() })
}

fn feed(source: &Arc<dyn Source>, setup: &Setup, args: &Args) -> anyhow::Result<DeviceBatches> {
    let sampler = Sampler::new(SEED, source.len(), u64::from(args.batch_size))?;
    let input = InputPlan {
        image_size: args.size,
        mean: MEAN,
        std: STD,
        exif: Exif::Ignore,
        pairing: Pairing::SameImage,
        finish_on: FinishOn::Cpu,
    };
    let workers = WorkerPlan { readers: READERS, decoders: args.decoders as usize };
    let placement = Placement { device: setup.device.clone(), dtype: setup.dtype };
    let stages = ViewStages { input, workers, placement };
    let order = TrainingOrder { sampler, position: 0, seed: SEED, batch_size: setup.batch_size };
    let augmentation = Arc::new(Identity { side: args.size });
    Ok(stages.training(source, augmentation, &order, OnBadSample::Fail)?)
}

/// Decoded images in memory, all of one size.
struct Crops {
    side: u32,
    images: Vec<Vec<u8>>,
}

impl Source for Crops {
    fn len(&self) -> u64 {
        self.images.len() as u64
    }

    fn read(&self, sample_index: u64) -> Result<EncodedSample, IngestError> {
        let image = usize::try_from(sample_index).ok().and_then(|index| self.images.get(index));
        let n_samples = self.len();
        let pixels = image.ok_or(IngestError::SampleIndex { sample_index, n_samples })?.clone();
        let key = SampleKey { shard: "memory".into(), name: sample_index.to_string() };
        let payload = Payload::Rgb { width: self.side, height: self.side, pixels };
        Ok(EncodedSample { key, sample_index, payload })
    }

    fn label(&self, _: u64) -> Result<Option<u32>, IngestError> {
        Ok(None)
    }

    fn n_classes(&self) -> Option<u32> {
        None
    }
}

/// Makes an image its own view.
struct Identity {
    side: u32,
}

impl Augmentation for Identity {
    fn view(&self, image: &RgbImage, _: Stream) -> Result<RgbImage, AugmentError> {
        Ok(image.clone())
    }

    fn image_size(&self) -> u32 {
        self.side
    }
}
