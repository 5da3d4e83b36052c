//! The data stages: sampler → readers → decoders → batcher → uploader.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use moco_augment::{Augmentation, RgbImage, Square};
use moco_encoders::Encoder;
use moco_ingest::{EncodedSample, IngestError, Payload, Sampler, Slot, Source, read_ahead};
use moco_ops::{ArrivingImages, ImageStep, ImageUpload};
use moco_pipeline::{Feed, Pipeline, StageError, StageReport};
use moco_rng::{At, Purpose, Seed, Stream};

use crate::bad_sample::BadSample;
use crate::bad_samples::Substitutes;
use crate::error::TrainError;
use crate::finish::image_steps;
use crate::plan::{FinishOn, InputPlan, OnBadSample, Pairing, PretrainPlan, WorkerPlan};

/// Encoded samples that wait between readers and decoders, per lane.
const ENCODED_AHEAD: usize = 32;
/// Views that wait between decoders and batcher, per lane.
const VIEWS_AHEAD: usize = 8;
/// Batches of u8 that wait for the upload.
const BATCHES_AHEAD: usize = 2;
/// Uploaded batches that wait for the trainer.
const UPLOADED_AHEAD: usize = 1;

/// Where images go, and the type of the activations that they become.
#[derive(Debug, Clone)]
pub struct Target {
    /// The encoder's device.
    pub device: Device,
    /// f32, or bf16 on a GPU.
    pub dtype: DType,
}

impl Target {
    /// f32 on the CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32 }
    }

    /// The encoder's device.
    pub(crate) fn of(encoder: &dyn Encoder, dtype: DType) -> Self {
        let place = encoder.params().dtype_and_device();
        let device = place.map_or(Device::Cpu, |(_, device)| device.clone());
        Self { device, dtype }
    }
}

/// Batches in order, on the device that computes.
pub struct DeviceFeed {
    feed: Feed<Arriving>,
    upload: Arc<ImageUpload>,
}

impl std::fmt::Debug for DeviceFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceFeed").field("upload", &self.upload).finish_non_exhaustive()
    }
}

impl DeviceFeed {
    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// If a stage failed.
    pub fn recv(&mut self) -> Result<Option<DeviceBatch>, TrainError> {
        let Some(Arriving { views, sample_indices, bad_samples }) = self.feed.recv()? else {
            return Ok(None);
        };
        let views = views.into_iter().map(|view| self.upload.finish(view));
        let views = views.collect::<Result<_, _>>()?;
        Ok(Some(DeviceBatch { views, sample_indices, bad_samples }))
    }

    /// What each stage did so far.
    #[must_use]
    pub fn meters(&self) -> Vec<StageReport> {
        self.feed.meters()
    }
}

/// A batch whose views may still be on their way to the device.
struct Arriving {
    views: Vec<ArrivingImages>,
    sample_indices: Vec<u64>,
    bad_samples: Vec<BadSample>,
}

/// A batch of views as the encoders take it.
#[derive(Debug)]
pub struct DeviceBatch {
    /// One tensor a view, `[N, 3, H, W]`, normalized, channels last in memory.
    pub views: Vec<Tensor>,
    /// Index of each sample.
    pub sample_indices: Vec<u64>,
    /// The samples that others took the place of.
    pub bad_samples: Vec<BadSample>,
}

/// The views of one image.
struct Views {
    sample_index: u64,
    squares: Vec<Square>,
    bad_samples: Vec<BadSample>,
}

/// A sample, or what is wrong with this one alone.
type ReadSample = Result<EncodedSample, IngestError>;

/// The order in which a run sees the images of `source`.
///
/// # Errors
/// If the batch is larger than the data set, or the source has no room for the plan's windows.
pub fn train_sampler(plan: &PretrainPlan, source: &dyn Source) -> Result<Sampler, TrainError> {
    let shard_sizes = source.shard_sizes();
    let (window_shards, n_shards) = (plan.window_shards, shard_sizes.len());
    let in_window = if window_shards == 0 { n_shards } else { window_shards.min(n_shards) };
    let limit = source.max_window_shards();
    if in_window > limit {
        return Err(TrainError::Window { window_shards, n_shards, limit });
    }
    Ok(Sampler::windowed(plan.seed, &shard_sizes, in_window.max(1), plan.batch_size as u64)?)
}

/// The randomness of the two views of an image in an epoch, the query's first.
#[must_use]
pub fn view_streams(seed: Seed, epoch: u32, sample_index: u64) -> [Stream; 2] {
    [0, 1].map(|view| seed.stream(Purpose::Augment, At { epoch, index: sample_index, view }))
}

/// Decodes an image.
///
/// # Errors
/// If it cannot be decoded; the error names it.
pub fn decode(sample: EncodedSample) -> Result<RgbImage, TrainError> {
    let key = sample.key;
    let decoded = match sample.payload {
        Payload::Encoded(bytes) => RgbImage::decode(&bytes),
        Payload::Rgb { width, height, pixels } => RgbImage::new(width, height, pixels),
    };
    decoded.map_err(|source| TrainError::Image { key: key.to_string(), source })
}

/// The endless feed of training batches from `position` (samples consumed so far) on. The same
/// positions give the same batches for any number of workers, also where bad samples are skipped; counting
/// those is up to the caller.
///
/// # Errors
/// If a thread cannot start.
pub fn train_feed(
    source: &Arc<dyn Source>,
    augmentation: Arc<dyn Augmentation>,
    (sampler, position): (Sampler, u64),
    (seed, batch_size): (Seed, usize),
    (input, workers, target): (&InputPlan, WorkerPlan, &Target),
    on_bad_sample: OnBadSample,
) -> Result<DeviceFeed, TrainError> {
    let substitutes = Substitutes::new(source, &sampler, seed);
    let finish_on = input.finish_on;
    let draw = move |(slot, read): (Slot, ReadSample)| -> Result<Views, TrainError> {
        // A substitute has the streams of the sample that it stands for: its own views come elsewhere.
        let streams = || Vec::from(view_streams(seed, slot.epoch, slot.sample_index));
        let squares = |sample: EncodedSample| {
            let sample_index = sample.sample_index;
            let squares = squares(sample, augmentation.as_ref(), (streams(), finish_on))?;
            Ok((sample_index, squares))
        };
        match (read.map_err(TrainError::from).and_then(squares), on_bad_sample) {
            (Err(error), OnBadSample::Skip { .. }) if error.is_of_one_sample() => {
                let (bad_samples, (sample_index, squares)) =
                    substitutes.find(slot, &error, squares)?;
                Ok(Views { sample_index, squares, bad_samples })
            }
            (read, _) => {
                let (sample_index, squares) = read?;
                Ok(Views { sample_index, squares, bad_samples: Vec::new() })
            }
        }
    };
    let slots = read_ahead(Arc::clone(source), &sampler, sampler.slots_from(position));
    let slots = slots.map(|slot| Ok(slot?));
    stages(source, slots, draw, batch_size, (input, workers, target))
}

/// The views of a sample, one for each stream; on a CPU they are finished.
fn squares(
    sample: EncodedSample,
    augmentation: &dyn Augmentation,
    (streams, finish_on): (Vec<Stream>, FinishOn),
) -> Result<Vec<Square>, TrainError> {
    let key = sample.key.to_string();
    let finished = |image| Square { image, steps: Vec::new() };
    let squares = match (sample.payload, finish_on) {
        (Payload::Encoded(file), FinishOn::Cpu) => augmentation
            .views(&file, streams)
            .map(|views| views.into_iter().map(finished).collect()),
        (Payload::Encoded(file), FinishOn::Gpu) => augmentation.squares(&file, streams),
        (Payload::Rgb { width, height, pixels }, _) => RgbImage::new(width, height, pixels)
            .and_then(|image| {
                let square = |stream| match finish_on {
                    FinishOn::Cpu => augmentation.view(&image, stream).map(finished),
                    FinishOn::Gpu => augmentation.square(&image, stream),
                };
                streams.into_iter().map(square).collect()
            }),
    };
    squares.map_err(|source| TrainError::Image { key, source })
}

/// A feed of single views, without randomness, of the given samples in order, each once. The last batch
/// is filled up with repetitions of the last sample; the caller drops them. A bad sample always ends it: an
/// accuracy is that of all samples.
///
/// # Errors
/// If a thread cannot start.
pub(crate) fn evaluation_feed(
    source: &Arc<dyn Source>,
    augmentation: Arc<dyn Augmentation>,
    n_samples: u64,
    batch_size: usize,
    (input, workers, target): (&InputPlan, WorkerPlan, &Target),
) -> Result<DeviceFeed, TrainError> {
    let draw = move |(slot, read): (Slot, ReadSample)| -> Result<Views, TrainError> {
        let sample = read?;
        let key = sample.key.to_string();
        let image = decode(sample)?;
        let stream = Seed(0).stream(Purpose::Augment, At::index(slot.sample_index));
        let view = augmentation
            .view(&image, stream)
            .map_err(|source| TrainError::Image { key, source })?;
        let squares = vec![Square { image: view, steps: Vec::new() }];
        Ok(Views { sample_index: slot.sample_index, squares, bad_samples: Vec::new() })
    };
    let filled = n_samples.next_multiple_of(batch_size as u64);
    let slots = (0..filled).map(move |position| {
        let sample_index = position.min(n_samples.saturating_sub(1));
        Ok(Slot { epoch: 0, position, sample_index })
    });
    let input =
        InputPlan { pairing: Pairing::SameImage, finish_on: FinishOn::Cpu, ..input.clone() };
    stages(source, slots, draw, batch_size, (&input, workers, target))
}

fn stages(
    source: &Arc<dyn Source>,
    slots: impl Iterator<Item = Result<Slot, StageError>> + Send + 'static,
    draw: impl Fn((Slot, ReadSample)) -> Result<Views, TrainError> + Send + Sync + 'static,
    batch_size: usize,
    (input, workers, target): (&InputPlan, WorkerPlan, &Target),
) -> Result<DeviceFeed, TrainError> {
    let upload = ImageUpload::new(&target.device, [input.mean, input.std], target.dtype)?;
    let upload = Arc::new(upload);
    let mut pipeline = Pipeline::new();
    let draw = Arc::new(draw);
    let lanes = pipeline.source("sample", workers.readers, ENCODED_AHEAD, slots)?;
    let lanes = pipeline.map("read", lanes, ENCODED_AHEAD, |_| {
        let source = Arc::clone(source);
        move |slot: Slot| -> Result<(Slot, ReadSample), StageError> {
            match source.read(slot.sample_index) {
                Err(error) if !error.is_of_one_sample() => Err(error.into()),
                read => Ok((slot, read)),
            }
        }
    })?;
    let lanes = pipeline.deal("deal", lanes, workers.decoders, ENCODED_AHEAD)?;
    let lanes = pipeline.map("decode", lanes, VIEWS_AHEAD, |_| {
        let draw = Arc::clone(&draw);
        move |sample| -> Result<Views, StageError> { Ok(draw(sample)?) }
    })?;
    let (pairing, finish_on) = (input.pairing, input.finish_on);
    let lanes = pipeline.batch("batch", lanes, batch_size, BATCHES_AHEAD, move |views| {
        Ok(collate(&views, pairing, finish_on))
    })?;
    let side = input.image_size as usize;
    let lanes = pipeline.map("upload", lanes, UPLOADED_AHEAD, |_| {
        let upload = Arc::clone(&upload);
        move |batch: HostBatch| -> Result<Arriving, StageError> {
            let HostBatch { views, sample_indices, bad_samples } = batch;
            let dims = [sample_indices.len(), side, side];
            let views = views.into_iter().map(|view| upload.start(view.pixels, dims, view.steps));
            let views = views.collect::<Result<_, _>>()?;
            Ok(Arriving { views, sample_indices, bad_samples })
        }
    })?;
    Ok(DeviceFeed { feed: pipeline.feed(lanes), upload })
}

/// One view of each image of a batch.
struct HostView {
    /// `[N, H, W, 3]`.
    pixels: Vec<u8>,
    /// What a GPU is to do to each; none at all for views that are finished.
    steps: Vec<Vec<ImageStep>>,
}

struct HostBatch {
    views: Vec<HostView>,
    sample_indices: Vec<u64>,
    bad_samples: Vec<BadSample>,
}

fn collate(samples: &[Views], pairing: Pairing, finish_on: FinishOn) -> HostBatch {
    let n_views = samples.first().map_or(0, |views| views.squares.len());
    let views = (0..n_views)
        .map(|view| {
            let of_view =
                |place| &samples[pairing.place_of(view, place, samples.len())].squares[view];
            let squares = || (0..samples.len()).map(of_view);
            // Whole images at a time: byte by byte this stage would hold a GPU up.
            let pixels: Vec<&[u8]> = squares().map(|square| square.image.pixels()).collect();
            let steps = match finish_on {
                FinishOn::Cpu => Vec::new(),
                FinishOn::Gpu => squares().map(|square| image_steps(&square.steps)).collect(),
            };
            HostView { pixels: pixels.concat(), steps }
        })
        .collect();
    HostBatch {
        views,
        sample_indices: samples.iter().map(|views| views.sample_index).collect(),
        bad_samples: samples.iter().flat_map(|views| views.bad_samples.iter().cloned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use moco_augment::Step;

    use super::*;

    fn samples() -> Vec<Views> {
        let square = |rgb: [u8; 3], steps| {
            let image = RgbImage::new(1, 1, rgb.to_vec()).unwrap();
            Square { image, steps }
        };
        let views = |i: u8| Views {
            sample_index: u64::from(i),
            squares: vec![
                square([i, 0, 255], vec![]),
                square([100 + i, 51, 0], vec![Step::Blur { sigma: f64::from(i) }]),
            ],
            bad_samples: Vec::new(),
        };
        (0..3).map(views).collect()
    }

    #[test]
    fn the_control_pairs_each_query_with_another_image() {
        let first_of_key = |pairing| -> Vec<u8> {
            collate(&samples(), pairing, FinishOn::Cpu).views[1]
                .pixels
                .chunks(3)
                .map(|rgb| rgb[0])
                .collect()
        };
        assert_eq!(first_of_key(Pairing::SameImage), [100, 101, 102]);
        assert_eq!(first_of_key(Pairing::Shuffled), [101, 102, 100]);
        // Steps for a GPU travel with their view.
        let batch = collate(&samples(), Pairing::Shuffled, FinishOn::Gpu);
        let blur = |sigma| vec![ImageStep::Blur { sigma }];
        assert_eq!(batch.views[1].steps, [blur(1.0), blur(2.0), blur(0.0)]);
        assert_eq!(batch.views[0].steps, [vec![], vec![], vec![]]);
    }
}
