//! Features of a whole data set, for the evaluations.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use moco_augment::Augmentation;
use moco_encoders::{Encoder, Mode};
use moco_evaluate::FeatureSet;
use moco_feed::{Placement, ViewStages};
use moco_ingest::{OnBadSample, Source};

use crate::error::{During, TrainError};

/// Images of a batch where nothing depends on its size.
const BATCH: usize = 100;

/// The input of an evaluation: images with labels, and how they become the encoder's input.
#[derive(Clone)]
pub(crate) struct Images<'a> {
    pub(crate) source: &'a Arc<dyn Source>,
    pub(crate) augmentation: &'a Arc<dyn Augmentation>,
    pub(crate) stages: &'a ViewStages,
    pub(crate) batch_size: usize,
    /// At most this many images from the start; 0 = all.
    pub(crate) limit: usize,
}

impl Images<'_> {
    /// Rows of `row(images)` for every labeled image.
    pub(crate) fn rows(
        &self,
        mut row: impl FnMut(&Tensor) -> Result<Tensor, TrainError>,
    ) -> Result<FeatureSet, TrainError> {
        let all = self.source.len();
        let n_samples = if self.limit == 0 { all } else { all.min(self.limit as u64) };
        let augmentation = Arc::clone(self.augmentation);
        let mut batches = self.stages.evaluation(
            self.source,
            augmentation,
            n_samples,
            self.batch_size,
            OnBadSample::Fail,
        )?;
        let (mut numbers, mut labels, mut dim) = (Vec::new(), Vec::new(), 0);
        let mut seen = 0;
        while let Some(batch) = batches.recv()? {
            let rows = row(&batch.views[0])?.to_vec2::<f32>().during("reading features")?;
            for (row, sample_index) in rows.into_iter().zip(batch.sample_indices) {
                let label = self.source.label(sample_index)?;
                if let (true, Some(label)) = (seen < n_samples, label) {
                    dim = row.len();
                    numbers.extend(row);
                    labels.push(label);
                }
                seen += 1;
            }
        }
        tracing::debug!(n_images = labels.len(), dim, "rows of a split are computed");
        Ok(FeatureSet::new(dim.max(1), numbers, labels)?)
    }
}

/// Features of images under an encoder in evaluation mode, with their labels; images without a label are
/// left out. `stages` bring the images to the encoder's device, in the type in which it is to store
/// activations; features are f32.
///
/// # Errors
/// If an image cannot be read, or the encoder's device has no such activations.
pub fn encode(
    encoder: &mut dyn Encoder,
    source: &Arc<dyn Source>,
    augmentation: &Arc<dyn Augmentation>,
    stages: &ViewStages,
) -> Result<FeatureSet, TrainError> {
    let images = Images { source, augmentation, stages, batch_size: BATCH, limit: 0 };
    images.rows(|images| Ok(encoder.features(images, Mode::Eval)?))
}

/// An encoder's device, for activations of this type.
#[must_use]
pub fn placement_of(encoder: &dyn Encoder, activations: DType) -> Placement {
    let of_parameters = encoder.params().dtype_and_device();
    let device = of_parameters.map_or(Device::Cpu, |(_, device)| device.clone());
    Placement { device, dtype: activations }
}
