//! A pretraining config as it is written: the sections and keys of the TOML file. Sections that grow stand
//! with their conversion, in `data`, `encoder`, `method` and `optim`; the rest is here.
//!
//! No key has a default. Each conversion takes its struct apart without
//! `..`, so a key that nothing reads is a compiler warning.

use serde::Deserialize;

use crate::data::RawData;
use crate::encoder::RawEncoder;
use crate::method::RawMoco;
use crate::optim::RawOptim;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "sections")]
pub(crate) struct RawPretrain {
    /// The table of keys that the file follows.
    pub(crate) format: u32,
    /// Seed and length of the run.
    pub(crate) run: RawRun,
    /// The location of the images, and the number of threads that fetch them.
    pub(crate) data: RawData,
    /// The augmentation of an image.
    pub(crate) augment: RawAugment,
    /// The network.
    pub(crate) encoder: RawEncoder,
    /// The method.
    pub(crate) moco: RawMoco,
    /// Batch and optimizer.
    pub(crate) optim: RawOptim,
    /// How the learning rate falls.
    pub(crate) schedule: RawSchedule,
    /// Log lines.
    pub(crate) log: RawLog,
    /// Checkpoints.
    pub(crate) checkpoint: RawCheckpoint,
    /// The kNN vote during the run and at its end.
    pub(crate) monitor: RawMonitor,
    /// The evaluation at the end.
    pub(crate) evaluate: RawEvaluate,
    /// Rules that end a sick run.
    pub(crate) health: RawHealth,
}

/// `[run]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawRun {
    /// Seed of every random number.
    pub(crate) seed: u64,
    /// Length in optimizer updates; either this or `epochs`.
    pub(crate) steps: Option<u64>,
    /// Length in passes over the data.
    pub(crate) epochs: Option<u64>,
    /// How activations are stored and multiplied.
    pub(crate) precision: RawPrecision,
    /// Whether a GPU captures the step as a CUDA graph and replays it.
    pub(crate) cuda_graph: bool,
    /// Which interface of its library a GPU's convolutions go through.
    pub(crate) conv_backend: RawConvBackend,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawConvBackend {
    Auto,
    Legacy,
    Graph,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPrecision {
    F32,
    Tf32,
    Bf16,
}

/// `[augment]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawAugment {
    /// Which transforms in which order.
    pub(crate) recipe: RawRecipe,
    /// How closely views follow Pillow.
    pub(crate) fidelity: RawFidelity,
    /// The device that finishes views after cropping.
    pub(crate) finish_on: RawFinishOn,
    /// Side of a view in pixels.
    pub(crate) image_size: u32,
    /// Least and greatest share of the area that a random crop keeps.
    pub(crate) crop_scale: (f64, f64),
    /// Mean of each channel, of pixels scaled to 0..1.
    pub(crate) mean: [f32; 3],
    /// Standard deviation of each channel.
    pub(crate) std: [f32; 3],
    /// Which view is the key's.
    pub(crate) pairing: RawPairing,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawFinishOn {
    Cpu,
    Gpu,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawRecipe {
    V1,
    V2,
    Cifar,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawFidelity {
    Exact,
    Fast,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPairing {
    SameImage,
    Shuffled,
}

/// `[schedule]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawSchedule {
    /// The curve.
    pub(crate) kind: RawScheduleKind,
    /// Epochs, from 0, at which the rate is multiplied by `gamma`; for `steps` only.
    pub(crate) milestones: Option<Vec<u32>>,
    /// Factor; for `steps` and `exponential` only.
    pub(crate) gamma: Option<f64>,
    /// Steps between two multiplications by `gamma`; for `exponential` only.
    pub(crate) every_steps: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawScheduleKind {
    Constant,
    CosinePerEpoch,
    CosinePerStep,
    Steps,
    Exponential,
}

/// `[log]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawLog {
    /// Steps between two lines; 0 = never.
    pub(crate) every_steps: u64,
}

/// `[checkpoint]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawCheckpoint {
    /// Steps between two checkpoints; 0 = only at the end.
    pub(crate) every_steps: u64,
    /// Checkpoints that stay.
    pub(crate) keep: usize,
}

/// `[monitor]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawMonitor {
    /// Steps between two kNN votes; 0 = never.
    pub(crate) knn_every_steps: u64,
    /// Neighbors that vote.
    pub(crate) n_neighbors: usize,
    /// τ of the vote's weights exp(similarity/τ).
    pub(crate) temperature: f64,
    /// Training images that may be neighbors during the run; 0 = all.
    pub(crate) bank: usize,
}

/// `[evaluate]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawEvaluate {
    /// Whether kNN and the linear classifier run at the end.
    pub(crate) at_end: bool,
    /// Shorter side in pixels to which images are resized before the central crop to
    /// `augment.image_size`.
    pub(crate) resize: u32,
    /// How the encoder stores activations while features are computed.
    pub(crate) activations: RawActivations,
    /// Passes over the training features.
    pub(crate) linear_epochs: u64,
    /// Batch of the linear classifier.
    pub(crate) linear_batch_size: usize,
    /// Its learning rate at the start.
    pub(crate) linear_lr: f64,
    /// Epochs at which its rate falls to a tenth.
    pub(crate) linear_milestones: Vec<u32>,
    /// Its momentum.
    pub(crate) linear_sgd_momentum: f64,
    /// Its weight decay.
    pub(crate) linear_weight_decay: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawActivations {
    F32,
    AsTrained,
}

/// `[health]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawHealth {
    /// Whether a collapse ends the run.
    pub(crate) stop_on_collapse: bool,
}
