//! The validated configuration of a pretraining run; the config crate builds it.

use candle_core::DType;
use moco::MocoConfig;
use moco_encoders::{EncoderConfig, HeadKind};
use moco_feed::{FeedError, InputPlan, Placement, TrainingOrder, ViewStages, WorkerPlan};
use moco_ingest::{OnBadSample, Source};
use moco_ops::{ConvBackend, Precision};
use moco_optim::{OptimizerConfig, Schedule};
use moco_rng::Seed;

/// A pretraining run.
#[derive(Debug, Clone)]
pub struct PretrainPlan {
    /// Seed of every random number.
    pub seed: Seed,
    /// Length of the run.
    pub length: Length,
    /// Global batch size.
    pub batch_size: usize,
    /// Learning rate at the first step, or after the warm-up; already scaled by the batch.
    pub lr: f64,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// The method.
    pub moco: MocoConfig,
    /// The backbone.
    pub encoder: EncoderConfig,
    /// The projection.
    pub head: HeadKind,
    /// The preprocessing of an image for the encoder.
    pub input: InputPlan,
    /// Shards whose samples are mixed at a time; 0 = all.
    pub window_shards: usize,
    /// How a GPU stores and multiplies activations; f32 on a CPU.
    pub precision: Precision,
    /// Capture the step as a CUDA graph and replay it.
    pub cuda_graph: bool,
    /// Which interface of its library a GPU's convolutions go through.
    pub conv_backend: ConvBackend,
    /// The policy for a training image that cannot be used.
    pub on_bad_sample: OnBadSample,
    /// Workers of the data stages.
    pub workers: WorkerPlan,
    /// Logging, checkpoints and the monitor.
    pub cadence: Cadence,
    /// The evaluation at the end.
    pub evaluation: EvaluationPlan,
    /// Rules that end a sick run.
    pub health: HealthPlan,
}

impl PretrainPlan {
    /// The order in which a run sees the images of `source`, from the start.
    ///
    /// # Errors
    /// If the batch is larger than the data set, or the source has no room for the plan's windows.
    pub fn training_order(&self, source: &dyn Source) -> Result<TrainingOrder, FeedError> {
        TrainingOrder::windowed(source, self.window_shards, self.seed, self.batch_size)
    }

    /// The stages that bring images to `placement`.
    #[must_use]
    pub fn view_stages(&self, placement: Placement) -> ViewStages {
        ViewStages { input: self.input.clone(), workers: self.workers, placement }
    }
}

/// Length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Optimizer updates.
    Steps(u64),
    /// Passes over the data, the incomplete last batch dropped.
    Epochs(u64),
}

impl Length {
    /// In optimizer updates.
    #[must_use]
    pub fn steps(self, steps_per_epoch: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Epochs(epochs) => epochs.saturating_mul(steps_per_epoch),
        }
    }
}

/// How often something happens, in steps; 0 = never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// Steps between two log lines.
    pub log_every: u64,
    /// Steps between two checkpoints; the last step always saves one.
    pub checkpoint_every: u64,
    /// Checkpoints kept.
    pub keep_checkpoints: usize,
    /// Steps between two runs of the kNN monitor.
    pub knn_every: u64,
}

/// The kNN vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnnPlan {
    /// Neighbors that vote.
    pub n_neighbors: usize,
    /// τ of the weights exp(similarity/τ).
    pub temperature: f64,
}

/// Evaluation on frozen features.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationPlan {
    /// Whether to evaluate at the end.
    pub at_end: bool,
    /// The kNN vote of the monitor and of the end.
    pub knn: KnnPlan,
    /// Shorter side in pixels that test images are resized to before the central crop of `image_size`.
    pub resize: u32,
    /// How the encoder stores activations meanwhile.
    pub activations: EvaluationActivations,
    /// Training images in the kNN bank of the monitor; 0 = all.
    pub monitor_bank: usize,
    /// The linear classifier.
    pub linear: LinearPlan,
}

/// How an encoder stores activations while its features are measured. The features themselves are f32, and
/// how a device multiplies f32 is not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationActivations {
    /// In f32, whatever the run trained with.
    F32,
    /// In the type that the run trained with.
    AsTrained,
}

impl EvaluationActivations {
    /// Their type for a run in this precision.
    #[must_use]
    pub fn dtype(self, of_run: Precision) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::AsTrained => of_run.activations(),
        }
    }
}

/// The linear classifier on frozen features.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearPlan {
    /// Passes over the training features.
    pub epochs: u64,
    /// Batch size.
    pub batch_size: usize,
    /// Learning rate at the start.
    pub lr: f64,
    /// Epochs at which the rate falls to a tenth.
    pub milestones: Vec<u32>,
    /// Momentum.
    pub sgd_momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// Rules that end a sick run with exit code 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPlan {
    /// Whether a collapse ends the run; a loss that is not finite always does.
    pub stop_on_collapse: bool,
}
