//! kNN and linear accuracy of pixels, a random encoder and a trained one.

use std::sync::Arc;

use moco_augment::{Augmentation, Recipe, RecipeConfig, RecipeKind};
use moco_encoders::{Encoder, Mode};
use moco_evaluate::{
    FeatureSet, KnnConfig, LinearConfig, knn_accuracy, linear_accuracy, train_linear,
};
use moco_ingest::Source;
use moco_optim::SgdConfig;
use moco_rng::Seed;

use crate::error::TrainError;
use crate::features::Images;
use crate::plan::{EvaluationPlan, InputPlan, PretrainPlan, WorkerPlan};

/// Batches whose statistics calibrate a random encoder's batch norm: after 50, what is left of the
/// initial running statistics is 0.9⁵⁰ = 0.5 %.
const CALIBRATION_BATCHES: usize = 50;

/// Labelled splits, for evaluation alone.
#[derive(Clone)]
pub struct Labelled {
    /// The bank of the kNN vote and the training set of the linear classifier.
    pub train: Arc<dyn Source>,
    /// What accuracy is measured on.
    pub test: Arc<dyn Source>,
}

impl std::fmt::Debug for Labelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (train, test) = (self.train.len(), self.test.len());
        f.debug_struct("Labelled").field("train", &train).field("test", &test).finish()
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

/// Measures encoders on labelled splits.
pub(crate) struct Evaluator {
    data: Labelled,
    augmentation: Arc<dyn Augmentation>,
    input: InputPlan,
    workers: WorkerPlan,
    plan: EvaluationPlan,
    seed: Seed,
}

impl Evaluator {
    pub(crate) fn new(data: Labelled, plan: &PretrainPlan) -> Result<Self, TrainError> {
        let kind = RecipeKind::Eval { resize: plan.evaluation.resize };
        let config =
            RecipeConfig { image_size: plan.input.image_size, crop_scale: (1.0, 1.0), kind };
        Ok(Self {
            data,
            augmentation: Arc::new(Recipe::new(config)?),
            input: plan.input.clone(),
            workers: plan.workers,
            plan: plan.evaluation.clone(),
            seed: plan.seed,
        })
    }

    fn images<'a>(&'a self, source: &'a Arc<dyn Source>, limit: usize) -> Images<'a> {
        let (augmentation, input) = (&self.augmentation, &self.input);
        Images { source, augmentation, input, workers: self.workers, limit }
    }

    fn knn_config(&self) -> KnnConfig {
        let knn = self.plan.knn;
        KnnConfig { n_neighbors: knn.n_neighbors, temperature: knn.temperature }
    }

    /// kNN accuracy with the monitor's smaller bank.
    pub(crate) fn monitor(&self, encoder: &mut dyn Encoder) -> Result<f64, TrainError> {
        let mut features = |source, limit| {
            let images = self.images(source, limit);
            images.rows(|images| Ok(encoder.features(images, Mode::Eval)?))
        };
        let train = features(&self.data.train, self.plan.monitor_bank)?;
        let test = features(&self.data.test, 0)?;
        Ok(knn_accuracy(&train, &test, self.knn_config())?)
    }

    pub(crate) fn pixels(&self) -> Result<Measured, TrainError> {
        let (train, test) = (&self.data.train, &self.data.test);
        let how = (&self.input, self.workers);
        let train = crate::features::raw_pixels(train, &self.augmentation, how)?;
        let test = crate::features::raw_pixels(test, &self.augmentation, how)?;
        self.measure(&train, &test)
    }

    pub(crate) fn encoder(&self, encoder: &mut dyn Encoder) -> Result<Measured, TrainError> {
        let (train, test) = (&self.data.train, &self.data.test);
        let how = (&self.input, self.workers);
        let train = crate::features::encode(encoder, train, &self.augmentation, how)?;
        let test = crate::features::encode(encoder, test, &self.augmentation, how)?;
        self.measure(&train, &test)
    }

    /// An untrained encoder with batch norm statistics from the training images: without them its
    /// evaluation mode would be arbitrary.
    pub(crate) fn random_encoder(&self, encoder: &mut dyn Encoder) -> Result<Measured, TrainError> {
        let mut batches = 0;
        while batches < CALIBRATION_BATCHES {
            let images = self.images(&self.data.train, 5_000);
            images.rows(|images| {
                batches += 1;
                let mode = if batches <= CALIBRATION_BATCHES { Mode::Train } else { Mode::Eval };
                Ok(encoder.features(images, mode)?)
            })?;
        }
        self.encoder(encoder)
    }

    fn measure(&self, train: &FeatureSet, test: &FeatureSet) -> Result<Measured, TrainError> {
        let knn = knn_accuracy(train, test, self.knn_config())?;
        let plan = &self.plan.linear;
        let config = LinearConfig {
            epochs: plan.epochs,
            batch_size: plan.batch_size,
            lr: plan.lr,
            milestones: plan.milestones.clone(),
            sgd: SgdConfig { sgd_momentum: plan.sgd_momentum, weight_decay: plan.weight_decay },
        };
        let n_classes = train.n_classes().max(test.n_classes());
        let probe = train_linear(train, n_classes, &config, self.seed)?;
        Ok(Measured { knn, linear: linear_accuracy(&probe, test)? })
    }
}
