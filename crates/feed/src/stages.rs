//! The data stages: sampler → readers → decoders → batcher → uploader.

use std::sync::Arc;

use moco_augment::{Augmentation, RgbImage, Square};
use moco_ingest::{BadSample, EncodedSample, IngestError, OnBadSample, Slot, Source, read_ahead};
use moco_ops::ImageUpload;
use moco_pipeline::{Pipeline, StageError};

use crate::bad_samples::Substitutes;
use crate::batch::{DeviceBatches, U8Batch, UploadingBatch};
use crate::error::FeedError;
use crate::order::TrainingOrder;
use crate::plan::{FinishOn, InputPlan, Pairing, Placement, WorkerPlan};
use crate::selection::Selection;
use crate::views::{AugmentedSample, evaluation_view, training_views, view_streams};

/// Encoded samples that wait between readers and decoders, per lane.
const ENCODED_AHEAD: usize = 32;
/// Views that wait between decoders and batcher, per lane.
const VIEWS_AHEAD: usize = 8;
/// Batches of u8 that wait for the upload.
const BATCHES_AHEAD: usize = 2;
/// Uploaded batches that wait for the trainer.
const UPLOADED_AHEAD: usize = 1;

/// A sample, or a fault that affects only this sample.
type ReadSample = Result<EncodedSample, IngestError>;

/// The stages from a source to the device: what a view is, how many threads make views, and where they go.
#[derive(Debug, Clone)]
pub struct ViewStages {
    /// The preprocessing of an image for the encoder.
    pub input: InputPlan,
    /// Threads of the stages.
    pub workers: WorkerPlan,
    /// The device that computes.
    pub placement: Placement,
}

impl ViewStages {
    /// The endless feed of training batches: two views of each image, in `order` from its position on. The
    /// same positions give the same batches for any number of workers, also where bad samples are skipped;
    /// counting those is up to the caller.
    ///
    /// # Errors
    /// If a thread cannot start, or the device cannot take uploads.
    pub fn training(
        &self,
        source: &Arc<dyn Source>,
        augmentation: Arc<dyn Augmentation>,
        order: &TrainingOrder,
        on_bad_sample: OnBadSample,
    ) -> Result<DeviceBatches, FeedError> {
        let substitutes = Substitutes::new(source, order);
        let seed = order.seed;
        let InputPlan { exif, finish_on, .. } = self.input;
        let draw = move |slot: Slot, read: ReadSample| -> Result<AugmentedSample, FeedError> {
            // A substitute has the streams of the sample that it stands for: its own views come elsewhere.
            let streams = || Vec::from(view_streams(seed, slot.epoch, slot.sample_index));
            let augment = |sample: EncodedSample| {
                let sample_index = sample.sample_index;
                let views =
                    training_views(sample, augmentation.as_ref(), streams(), exif, finish_on)?;
                Ok(AugmentedSample { sample_index, views, bad_samples: Vec::new() })
            };
            let made = read.map_err(FeedError::from).and_then(augment);
            match skipped(&made, slot, on_bad_sample) {
                Some(bad_sample) => {
                    let (bad_samples, sample) = substitutes.find(slot, bad_sample, augment)?;
                    Ok(AugmentedSample { bad_samples, ..sample })
                }
                None => made,
            }
        };
        let slots = read_ahead(
            Arc::clone(source),
            &order.sampler,
            order.sampler.slots_from(order.position),
        );
        let slots = slots.map(|slot| Ok(slot?));
        self.start(source, slots, draw, order.batch_size)
    }

    /// A feed of single views, without randomness, of the images of `selection` in its order, each once. The
    /// last batch is filled up with repetitions of the last sample; the caller drops them. A sample that is
    /// skipped has the view of another one of its batch (or a black one, where there is none) and is among the
    /// batch's [`bad_samples`](crate::DeviceBatch::bad_samples); counting it and dropping its row is up to the
    /// caller.
    ///
    /// # Errors
    /// If a thread cannot start, or the device cannot take uploads.
    pub fn evaluation(
        &self,
        source: &Arc<dyn Source>,
        augmentation: Arc<dyn Augmentation>,
        selection: Selection,
        batch_size: usize,
        on_bad_sample: OnBadSample,
    ) -> Result<DeviceBatches, FeedError> {
        let InputPlan { image_size: side, exif, .. } = self.input;
        let n_images = selection.len();
        let draw = move |slot: Slot, read: ReadSample| -> Result<AugmentedSample, FeedError> {
            let sample_index = slot.sample_index;
            let view = read.map_err(FeedError::from);
            let view = view.and_then(|read| evaluation_view(read, augmentation.as_ref(), exif));
            if let Some(bad_sample) = skipped(&view, slot, on_bad_sample) {
                // Its repetitions at the end are in the batch of the sample itself, which names it.
                let bad_samples = Vec::from_iter((slot.position < n_images).then_some(bad_sample));
                return Ok(AugmentedSample {
                    sample_index,
                    views: vec![black(side)?],
                    bad_samples,
                });
            }
            Ok(AugmentedSample { sample_index, views: vec![view?], bad_samples: Vec::new() })
        };
        let filled = n_images.next_multiple_of(batch_size as u64);
        let slots = (0..filled).map(move |position| {
            Ok(Slot { epoch: 0, position, sample_index: selection.at(position) })
        });
        let input = InputPlan {
            pairing: Pairing::SameImage,
            finish_on: FinishOn::Cpu,
            ..self.input.clone()
        };
        Self { input, ..self.clone() }.start(source, slots, draw, batch_size)
    }

    fn start(
        &self,
        source: &Arc<dyn Source>,
        slots: impl Iterator<Item = Result<Slot, StageError>> + Send + 'static,
        draw: impl Fn(Slot, ReadSample) -> Result<AugmentedSample, FeedError> + Send + Sync + 'static,
        batch_size: usize,
    ) -> Result<DeviceBatches, FeedError> {
        let Self { input, workers, placement } = self;
        let upload = ImageUpload::new(&placement.device, [input.mean, input.std], placement.dtype)?;
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
            move |read: (Slot, ReadSample)| -> Result<AugmentedSample, StageError> {
                let (slot, sample) = read;
                Ok(draw(slot, sample)?)
            }
        })?;
        let (pairing, finish_on) = (input.pairing, input.finish_on);
        let lanes = pipeline.batch("batch", lanes, batch_size, BATCHES_AHEAD, move |samples| {
            Ok(U8Batch::collate(&samples, pairing, finish_on))
        })?;
        let side = input.image_size as usize;
        let lanes = pipeline.map("upload", lanes, UPLOADED_AHEAD, |_| {
            let upload = Arc::clone(&upload);
            move |batch: U8Batch| -> Result<UploadingBatch, StageError> {
                Ok(batch.upload(&upload, side)?)
            }
        })?;
        Ok(DeviceBatches { feed: pipeline.feed(lanes), upload })
    }
}

/// The sample of a slot, if it cannot be used and the policy is to skip it.
fn skipped<T>(
    made: &Result<T, FeedError>,
    slot: Slot,
    on_bad_sample: OnBadSample,
) -> Option<BadSample> {
    match on_bad_sample {
        OnBadSample::Fail => None,
        OnBadSample::Skip { .. } => made.as_ref().err()?.bad_sample(slot.sample_index),
    }
}

/// What stands for a view that there is none of.
fn black(side: u32) -> Result<Square, FeedError> {
    let pixels = vec![0; 3 * side as usize * side as usize];
    let image = RgbImage::new(side, side, pixels);
    let image = image.map_err(|source| FeedError::Image { key: "black".to_owned(), source })?;
    Ok(Square { image, steps: Vec::new() })
}
