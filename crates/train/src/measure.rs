//! kNN and linear accuracy of pixels, a random encoder and a trained one.

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{DType, Device};
use moco_augment::{Augmentation, Recipe, RecipeConfig, RecipeKind};
use moco_encoders::{Encoder, Mode};
use moco_evaluate::{
    KnnConfig, LinearConfig, Progress, knn_accuracy, linear_accuracy, train_linear,
};
use moco_feed::{Placement, Selection, ViewStages};
use moco_ingest::{BadSample, OnBadSample, Source};
use moco_optim::SgdConfig;
use moco_rng::Seed;
use moco_telemetry::format_bytes;

use crate::error::{During, TrainError};
use crate::features::{Encoded, Images};
use crate::plan::{EvaluationPlan, KnnPlan, LinearPlan, PretrainPlan};

/// Most batches whose statistics calibrate a random encoder's batch norm: after 50, what is left of the
/// initial running statistics is 0.9⁵⁰ = 0.5 %.
const CALIBRATION_BATCHES: u64 = 50;

/// Largest side of the images whose pixels are measured: wider ones say little more of what pixels give away.
const PIXEL_SIDE_MAX: u32 = 32;

/// Most memory for the table of all images' pixels: ImageNet's 1.3 million would need 15 GiB.
const PIXEL_BYTES_MAX: u64 = 4 << 30;

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

/// What the kNN monitor saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Monitored {
    /// Accuracy in percent.
    pub(crate) knn: f64,
    /// Test images that it is the accuracy of.
    pub(crate) n_test: u64,
    pub(crate) bank: BankSize,
    /// Images that could not be used, of both splits.
    pub(crate) bad_samples: Vec<BadSample>,
}

/// The part of the training images that is the bank of the kNN monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BankSize {
    /// Images of the bank.
    pub n_images: u64,
    /// Training images.
    pub of_images: u64,
    /// Classes of the bank.
    pub n_classes: u64,
    /// Classes of the training images.
    pub of_classes: u64,
}

/// How test images become an encoder's input: shorter side to `evaluation.resize`, central crop.
///
/// # Errors
/// If the sizes are not possible.
pub fn evaluation_recipe(plan: &PretrainPlan) -> Result<Arc<dyn Augmentation>, TrainError> {
    central_crop(plan.evaluation.resize, plan.input.image_size)
}

fn central_crop(resize: u32, image_size: u32) -> Result<Arc<dyn Augmentation>, TrainError> {
    let kind = RecipeKind::Eval { resize };
    let config = RecipeConfig { image_size, crop_scale: (1.0, 1.0), kind };
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

/// The features of both labeled splits.
pub(crate) struct Tables {
    pub(crate) train: Encoded,
    pub(crate) test: Encoded,
}

/// Measures encoders on labeled splits. Of images and features, only the tables of one encoder are held at a
/// time, and blocks beside them.
pub(crate) struct Evaluator {
    data: Labeled,
    augmentation: Arc<dyn Augmentation>,
    /// To where features are computed, with activations as the plan says.
    stages: ViewStages,
    /// That of training, which the groups of batch norm divide.
    batch_size: usize,
    plan: EvaluationPlan,
    on_bad_sample: OnBadSample,
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
            on_bad_sample: plan.on_bad_sample,
            seed: plan.seed,
        })
    }

    /// Images of a split on their way through the stages.
    fn images<'a>(&'a self, source: &'a Arc<dyn Source>, selection: Selection) -> Images<'a> {
        let Self { augmentation, stages, batch_size, on_bad_sample, .. } = self;
        let (batch_size, on_bad_sample) = (*batch_size, *on_bad_sample);
        Images { source, augmentation, stages, batch_size, selection, on_bad_sample }
    }

    /// Images of both splits together.
    fn n_images(&self) -> u64 {
        self.data.train.len() + self.data.test.len()
    }

    /// kNN accuracy with the monitor's smaller bank, the same one each time.
    pub(crate) fn monitor(&self, encoder: &mut dyn Encoder) -> Result<Monitored, TrainError> {
        let mut encode = |source, selection| {
            let images = self.images(source, selection);
            images.encode(|images| Ok(encoder.features(images, Mode::Eval)?), &mut |_| ())
        };
        let Labeled { train, test } = &self.data;
        let limit = self.plan.monitor_bank as u64;
        let bank = encode(train, Selection::sorted(train.as_ref(), limit, self.seed))?;
        let queries = encode(test, Selection::all(test.as_ref()))?;
        let met: BTreeSet<u32> = bank.features.labels().iter().copied().collect();
        let bank_size = BankSize {
            n_images: bank.features.len() as u64,
            of_images: train.len(),
            n_classes: met.len() as u64,
            of_classes: train.n_classes().map_or(0, u64::from),
        };
        let tables = Tables { train: bank, test: queries };
        Ok(Monitored {
            knn: self.knn(&tables, &mut |_, _| ())?,
            n_test: tables.test.features.len() as u64,
            bank: bank_size,
            bad_samples: [tables.train.bad_samples, tables.test.bad_samples].concat(),
        })
    }

    /// Why nothing can be measured, if so.
    pub(crate) fn without_labels(&self) -> Option<String> {
        let splits = [("training", &self.data.train), ("test", &self.data.test)];
        let (split, _) = splits.into_iter().find(|(_, source)| source.n_classes().is_none())?;
        Some(format!("the {split} images have no labels"))
    }

    /// Why the pixels are not measured, if so.
    pub(crate) fn without_pixels(&self) -> Option<String> {
        let (n_images, side) = (self.n_images(), self.pixel_side());
        let n_bytes = n_images.saturating_mul(12 * u64::from(side) * u64::from(side));
        (n_bytes > PIXEL_BYTES_MAX).then(|| {
            format!(
                "the table of {n_images} images of {side} x {side} pixels would need {}, more than {}",
                format_bytes(n_bytes),
                format_bytes(PIXEL_BYTES_MAX)
            )
        })
    }

    /// Side of the images whose pixels are measured.
    fn pixel_side(&self) -> u32 {
        self.stages.input.image_size.min(PIXEL_SIDE_MAX)
    }

    /// Pixels of all images, small ones. They are no activations: they are f32.
    pub(crate) fn pixels(&self, progress: Progress<'_>) -> Result<Tables, TrainError> {
        let mut stages = self.stages.clone();
        stages.placement.dtype = DType::F32;
        let (of_encoder, side) = (stages.input.image_size, self.pixel_side());
        stages.input.image_size = side;
        // The same part of each image, but smaller.
        let resize = (u64::from(self.plan.resize) * u64::from(side)).div_ceil(of_encoder.into());
        let resize = u32::try_from(resize).unwrap_or(u32::MAX);
        let augmentation = central_crop(resize, side)?;
        self.of_both(progress, |source, progress| {
            let selection = Selection::all(source.as_ref());
            let images = self.images(source, selection);
            let images = Images { augmentation: &augmentation, stages: &stages, ..images };
            images.encode(|images| images.flatten_from(1).during("flattening pixels"), progress)
        })
    }

    /// Features of all images under an encoder.
    pub(crate) fn encode(
        &self,
        encoder: &mut dyn Encoder,
        progress: Progress<'_>,
    ) -> Result<Tables, TrainError> {
        self.of_both(progress, |source, progress| {
            let images = self.images(source, Selection::all(source.as_ref()));
            images.encode(|images| Ok(encoder.features(images, Mode::Eval)?), progress)
        })
    }

    fn of_both(
        &self,
        progress: Progress<'_>,
        mut encode: impl FnMut(&Arc<dyn Source>, &mut dyn FnMut(u64)) -> Result<Encoded, TrainError>,
    ) -> Result<Tables, TrainError> {
        let Labeled { train, test } = &self.data;
        let (n_train, total) = (train.len(), self.n_images());
        let of_train = encode(train, &mut |done| progress(done, total))?;
        let of_test = encode(test, &mut |done| progress(n_train + done, total))?;
        Ok(Tables { train: of_train, test: of_test })
    }

    /// Gives an untrained encoder batch norm statistics from training images of the whole source, in whole
    /// batches: without them its evaluation mode would be arbitrary.
    pub(crate) fn calibrate(&self, encoder: &mut dyn Encoder) -> Result<(), TrainError> {
        let train = &self.data.train;
        let n_batches = (train.len() / self.batch_size as u64).min(CALIBRATION_BATCHES);
        let limit = n_batches * self.batch_size as u64;
        let images = self.images(train, Selection::mixed(train.as_ref(), limit, self.seed));
        images.encode(|images| Ok(encoder.features(images, Mode::Train)?), &mut |_| ())?;
        Ok(())
    }

    /// Accuracy in percent of the kNN vote.
    pub(crate) fn knn(&self, of: &Tables, progress: Progress<'_>) -> Result<f64, TrainError> {
        let KnnPlan { n_neighbors, temperature } = self.plan.knn;
        let config = KnnConfig { n_neighbors, temperature };
        Ok(knn_accuracy(&of.train.features, &of.test.features, config, progress)?)
    }

    /// Accuracy in percent of the linear classifier.
    pub(crate) fn linear(&self, of: &Tables, progress: Progress<'_>) -> Result<f64, TrainError> {
        let [train, test] = [&of.train.features, &of.test.features];
        let config = linear_config(&self.plan.linear);
        let n_classes = train.n_classes().max(test.n_classes());
        let probe = train_linear(train, n_classes, &config, self.seed, progress)?;
        Ok(linear_accuracy(&probe, test)?)
    }
}
