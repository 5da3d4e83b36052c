//! kNN and linear accuracy of pixels, a random encoder and a trained one.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use moco_augment::{Augmentation, Recipe, RecipeConfig, RecipeKind};
use moco_encoders::{Encoder, Mode};
use moco_evaluate::{
    FeatureSet, KnnConfig, LinearConfig, knn_accuracy, linear_accuracy, train_linear,
};
use moco_feed::{Placement, ViewStages};
use moco_ingest::Source;
use moco_optim::SgdConfig;
use moco_rng::Seed;

use crate::error::{During, TrainError};
use crate::features::Images;
use crate::plan::{EvaluationPlan, LinearPlan, PretrainPlan};

/// Most batches whose statistics calibrate a random encoder's batch norm: after 50, what is left of the
/// initial running statistics is 0.9⁵⁰ = 0.5 %.
const CALIBRATION_BATCHES: usize = 50;

/// Labeled splits, only for evaluation.
#[derive(Clone)]
pub struct Labeled {
    /// The bank of the kNN vote and the training set of the linear classifier.
    pub train: Arc<dyn Source>,
    /// The images that accuracy is measured on.
    pub test: Arc<dyn Source>,
}

impl std::fmt::Debug for Labeled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (train, test) = (self.train.len(), self.test.len());
        f.debug_struct("Labeled").field("train", &train).field("test", &test).finish()
    }
}

/// Accuracies in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Of the kNN vote.
    pub knn: f64,
    /// Of the linear classifier.
    pub linear: f64,
}

/// How test images become an encoder's input: shorter side to `evaluation.resize`, central crop.
///
/// # Errors
/// If the sizes are not possible.
pub fn evaluation_recipe(plan: &PretrainPlan) -> Result<Arc<dyn Augmentation>, TrainError> {
    let kind = RecipeKind::Eval { resize: plan.evaluation.resize };
    let config = RecipeConfig { image_size: plan.input.image_size, crop_scale: (1.0, 1.0), kind };
    Ok(Arc::new(Recipe::new(config)?))
}

/// The plan of the linear classifier in the terms of the crate that trains it.
#[must_use]
pub fn linear_config(plan: &LinearPlan) -> LinearConfig {
    LinearConfig {
        epochs: plan.epochs,
        batch_size: plan.batch_size,
        lr: plan.lr,
        milestones: plan.milestones.clone(),
        sgd: SgdConfig { sgd_momentum: plan.sgd_momentum, weight_decay: plan.weight_decay },
    }
}

/// Measures encoders on labeled splits.
pub(crate) struct Evaluator {
    data: Labeled,
    augmentation: Arc<dyn Augmentation>,
    /// To where features are computed, with activations as the plan says.
    stages: ViewStages,
    /// That of training, which the groups of batch norm divide.
    batch_size: usize,
    plan: EvaluationPlan,
    seed: Seed,
}

impl Evaluator {
    /// Measures encoders that live on `device`.
    pub(crate) fn new(
        data: Labeled,
        plan: &PretrainPlan,
        device: Device,
    ) -> Result<Self, TrainError> {
        let dtype = plan.evaluation.activations.dtype(plan.precision);
        Ok(Self {
            data,
            augmentation: evaluation_recipe(plan)?,
            stages: plan.view_stages(Placement { device, dtype }),
            batch_size: plan.batch_size,
            plan: plan.evaluation.clone(),
            seed: plan.seed,
        })
    }

    /// The first `limit` images of a split on their way through `stages`; all if it is 0.
    fn images<'a>(
        &'a self,
        source: &'a Arc<dyn Source>,
        stages: &'a ViewStages,
        limit: usize,
    ) -> Images<'a> {
        let (augmentation, batch_size) = (&self.augmentation, self.batch_size);
        Images { source, augmentation, stages, batch_size, limit }
    }

    fn knn_config(&self) -> KnnConfig {
        let knn = self.plan.knn;
        KnnConfig { n_neighbors: knn.n_neighbors, temperature: knn.temperature }
    }

    /// kNN accuracy with the monitor's smaller bank.
    pub(crate) fn monitor(&self, encoder: &mut dyn Encoder) -> Result<f64, TrainError> {
        let mut features = |source, limit| {
            let images = self.images(source, &self.stages, limit);
            images.rows(|images| Ok(encoder.features(images, Mode::Eval)?))
        };
        let train = features(&self.data.train, self.plan.monitor_bank)?;
        let test = features(&self.data.test, 0)?;
        Ok(knn_accuracy(&train, &test, self.knn_config())?)
    }

    /// Pixels are no activations: they are f32.
    pub(crate) fn pixels(&self) -> Result<Measured, TrainError> {
        let mut stages = self.stages.clone();
        stages.placement.dtype = DType::F32;
        self.of_rows(&stages, |images| images.flatten_from(1).during("flattening pixels"))
    }

    pub(crate) fn encoder(&self, encoder: &mut dyn Encoder) -> Result<Measured, TrainError> {
        self.of_rows(&self.stages, |images| Ok(encoder.features(images, Mode::Eval)?))
    }

    fn of_rows(
        &self,
        stages: &ViewStages,
        mut row: impl FnMut(&Tensor) -> Result<Tensor, TrainError>,
    ) -> Result<Measured, TrainError> {
        let train = self.images(&self.data.train, stages, 0).rows(&mut row)?;
        let test = self.images(&self.data.test, stages, 0).rows(&mut row)?;
        self.measure(&train, &test)
    }

    /// An untrained encoder with batch norm statistics from the training images: without them its
    /// evaluation mode would be arbitrary.
    pub(crate) fn random_encoder(&self, encoder: &mut dyn Encoder) -> Result<Measured, TrainError> {
        let limit = CALIBRATION_BATCHES * self.batch_size;
        let images = self.images(&self.data.train, &self.stages, limit);
        images.rows(|images| Ok(encoder.features(images, Mode::Train)?))?;
        self.encoder(encoder)
    }

    fn measure(&self, train: &FeatureSet, test: &FeatureSet) -> Result<Measured, TrainError> {
        let knn = knn_accuracy(train, test, self.knn_config())?;
        let config = linear_config(&self.plan.linear);
        let n_classes = train.n_classes().max(test.n_classes());
        let probe = train_linear(train, n_classes, &config, self.seed)?;
        Ok(Measured { knn, linear: linear_accuracy(&probe, test)? })
    }
}
