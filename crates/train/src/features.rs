//! Features of a whole data set, for the evaluations.

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use moco_augment::Augmentation;
use moco_encoders::{Encoder, Mode};
use moco_evaluate::FeatureSet;
use moco_feed::{Placement, Selection, ViewStages};
use moco_ingest::{BadSample, BadSamples, OnBadSample, OverBudget, Source};

use crate::error::{During, TrainError};

/// Images of a batch where nothing depends on its size.
const BATCH: usize = 100;

/// The features of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// Features and labels of the images that have a label and could be used.
    pub features: FeatureSet,
    /// The numbers of these images in the split.
    pub sample_indices: Vec<u64>,
    /// The images that could not be used.
    pub bad_samples: Vec<BadSample>,
    /// Images without a label.
    pub n_unlabeled: u64,
}

/// The input of an evaluation: images with labels, and how they become the encoder's input.
#[derive(Clone)]
pub(crate) struct Images<'a> {
    pub(crate) source: &'a Arc<dyn Source>,
    pub(crate) augmentation: &'a Arc<dyn Augmentation>,
    pub(crate) stages: &'a ViewStages,
    pub(crate) batch_size: usize,
    pub(crate) selection: Selection,
    /// The budget bounds the images that this evaluation leaves out.
    pub(crate) on_bad_sample: OnBadSample,
}

impl Images<'_> {
    /// Rows of `row(images)` for every labeled image of the selection, a batch at a time; `progress` gets how
    /// many images were processed.
    pub(crate) fn encode(
        &self,
        mut row: impl FnMut(&Tensor) -> Result<Tensor, TrainError>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Encoded, TrainError> {
        let n_samples = self.selection.len();
        let mut batches = self.stages.evaluation(
            self.source,
            Arc::clone(self.augmentation),
            self.selection.clone(),
            self.batch_size,
            self.on_bad_sample,
        )?;
        let mut admitted = BadSamples::new(self.on_bad_sample);
        let (mut numbers, mut labels, mut dim) = (Vec::new(), Vec::new(), 0);
        let (mut sample_indices, mut bad_samples) = (Vec::new(), Vec::new());
        let (mut done, mut n_unlabeled) = (0, 0);
        while let Some(batch) = batches.recv()? {
            let rows = row(&batch.views[0])?.to_vec2::<f32>().during("reading features")?;
            let mut bad = BTreeSet::new();
            for sample in batch.bad_samples {
                admitted.admit(&sample).map_err(|over| over_budget(over, &sample))?;
                bad.insert(sample.sample_index);
                bad_samples.push(sample);
            }
            // Repetitions of the last sample fill the last batch.
            let n_left = usize::try_from(n_samples - done).unwrap_or(usize::MAX);
            for (row, sample_index) in rows.into_iter().zip(batch.sample_indices).take(n_left) {
                done += 1;
                if bad.contains(&sample_index) {
                    continue;
                }
                let Some(label) = self.source.label(sample_index)? else {
                    n_unlabeled += 1;
                    continue;
                };
                if numbers.is_empty() {
                    dim = row.len();
                    // A table that grows by doubling would need half as much again.
                    numbers.reserve_exact(dim * usize::try_from(n_samples).unwrap_or(0));
                }
                numbers.extend(row);
                labels.push(label);
                sample_indices.push(sample_index);
            }
            progress(done);
        }
        tracing::debug!(n_images = labels.len(), dim, "rows of a split are computed");
        let features = FeatureSet::new(dim.max(1), numbers, labels)?;
        Ok(Encoded { features, sample_indices, bad_samples, n_unlabeled })
    }
}

fn over_budget(OverBudget { budget, n_bad_samples }: OverBudget, last: &BadSample) -> TrainError {
    TrainError::BadSampleBudget { budget, n_bad_samples, last: last.clone() }
}

/// Features of images under an encoder in evaluation mode, with their labels; images without a label are
/// left out, and so are images that cannot be used where `on_bad_sample` says so. `stages` bring the images to
/// the encoder's device, in the type in which it is to store activations; features are f32. `progress` gets
/// how many images were processed.
///
/// # Errors
/// If an image cannot be used, or more than may be left out, or the encoder's device has no such activations.
pub fn encode(
    encoder: &mut dyn Encoder,
    source: &Arc<dyn Source>,
    augmentation: &Arc<dyn Augmentation>,
    stages: &ViewStages,
    on_bad_sample: OnBadSample,
    progress: &mut dyn FnMut(u64),
) -> Result<Encoded, TrainError> {
    let selection = Selection::all(source.as_ref());
    let images =
        Images { source, augmentation, stages, batch_size: BATCH, selection, on_bad_sample };
    images.encode(|images| Ok(encoder.features(images, Mode::Eval)?), progress)
}

/// An encoder's device, for activations of this type.
#[must_use]
pub fn placement_of(encoder: &dyn Encoder, activations: DType) -> Placement {
    let of_parameters = encoder.params().dtype_and_device();
    let device = of_parameters.map_or(Device::Cpu, |(_, device)| device.clone());
    Placement { device, dtype: activations }
}
