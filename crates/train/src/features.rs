//! Features of a whole data set, for the evaluations.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use moco_augment::Augmentation;
use moco_encoders::{Encoder, Mode};
use moco_evaluate::FeatureSet;
use moco_ingest::Source;

use crate::error::{During, TrainError};
use crate::feeds::{Target, evaluation_feed};
use crate::plan::{InputPlan, WorkerPlan};

/// Images of a batch where nothing depends on its size.
const BATCH: usize = 100;

/// What an evaluation reads: images with labels and how they become the encoder's input.
#[derive(Clone)]
pub(crate) struct Images<'a> {
    pub(crate) source: &'a Arc<dyn Source>,
    pub(crate) augmentation: &'a Arc<dyn Augmentation>,
    pub(crate) input: &'a InputPlan,
    pub(crate) workers: WorkerPlan,
    pub(crate) target: &'a Target,
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
        let how = (self.input, self.workers, self.target);
        let mut feed = evaluation_feed(self.source, augmentation, n_samples, self.batch_size, how)?;
        let (mut numbers, mut labels, mut dim) = (Vec::new(), Vec::new(), 0);
        let mut seen = 0;
        while let Some(batch) = feed.recv()? {
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
        Ok(FeatureSet::new(dim.max(1), numbers, labels)?)
    }
}

/// Features of images under an encoder in evaluation mode, with their labels; images without a label are
/// left out. `activations` is the type in which the encoder stores them; features are f32.
///
/// # Errors
/// If an image cannot be read, or the encoder's device has no such activations.
pub fn encode(
    encoder: &mut dyn Encoder,
    source: &Arc<dyn Source>,
    augmentation: &Arc<dyn Augmentation>,
    (input, workers, activations): (&InputPlan, WorkerPlan, DType),
) -> Result<FeatureSet, TrainError> {
    let target = &Target::of(encoder, activations);
    let images =
        Images { source, augmentation, input, workers, target, batch_size: BATCH, limit: 0 };
    images.rows(|images| Ok(encoder.features(images, Mode::Eval)?))
}
