//! Momentum Contrast: the queue, the momentum encoder, Shuffling BN, InfoNCE and the training step.
//!
//! The principal type is [`Moco`]; [`Moco::step`] is Algorithm 1 of MoCo v1 and lives in
//! `algorithm_1.rs`, one line of code for each line of the paper. A step takes a [`Batch`] of two views
//! and a learning rate. [`EndToEnd`] is the paper's mechanism without a queue; a training loop sees both as
//! a [`Mechanism`]. [`Inspector`] looks at a step and [`Health`] judges what it sees, [`CapturedSteps`] replays it as a CUDA graph.
//! Data, schedules, checkpoints and logs live in higher crates: `moco-train` runs all of it from a config.
//!
//! From nothing to a trained encoder:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use moco::{Batch, MechanismKind, Moco, MocoConfig, QueuePrecision};
//! use moco_encoders::{Arch, BnConfig, EncoderConfig, HeadKind, Mode, ResNetConfig, RunningStats, Stem};
//! use moco_optim::SgdConfig;
//! use moco_rng::{At, Purpose, Seed};
//!
//! let (seed, device) = (Seed(0), Device::Cpu);
//! let bn = BnConfig { groups: 2, running: RunningStats::First };
//! let (arch, stem) = (Arch::ResNet10, Stem::Cifar);
//! let encoder = EncoderConfig::ResNet(ResNetConfig { arch, stem, width: 0.25, bn });
//! let config = MocoConfig {
//!     mechanism: MechanismKind::Queue,
//!     queue_size: 64,
//!     key_momentum: 0.99,
//!     temperature: 0.2,
//!     dim: 32,
//!     symmetric: false,
//!     shuffle_bn: true,
//!     queue_precision: QueuePrecision::AsParameters,
//! };
//! let sgd = SgdConfig { sgd_momentum: 0.9, weight_decay: 1e-4 };
//! let encoder = encoder.build(seed, DType::F32, &device)?;
//! let mut moco = Moco::new(encoder, HeadKind::Mlp, config, sgd, seed)?;
//!
//! // Noise stands for the two views of each image, which `moco-augment` draws.
//! let view = |index: u64| {
//!     let mut stream = seed.stream(Purpose::Augment, At::index(index));
//!     let pixels: Vec<f32> = (0..8 * 3 * 16 * 16).map(|_| stream.normal() as f32).collect();
//!     Tensor::from_vec(pixels, (8, 3, 16, 16), &device)
//! };
//! for step in 0..3 {
//!     let (im_q, im_k) = (view(2 * step)?, view(2 * step + 1)?);
//!     let output = moco.step(&Batch { im_q, im_k, sample_indices: Vec::new() }, 0.03)?;
//!     println!("step {step}: loss {:.3}", output.statistics.read()?.loss);
//! }
//! // The features of the trained encoder, without its head.
//! let features = moco.encoder_q_mut().encoder_mut().features(&view(9)?, Mode::Eval)?;
//! assert_eq!(features.dims(), [8, 128]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod alarm;
mod algorithm_1;
mod batch;
mod bounds;
mod build;
mod config;
mod encoder_with_head;
mod end_to_end;
mod error;
mod graph;
mod health;
mod inspect;
mod mechanism;
mod model;
mod queue;
mod shuffle;
mod state;
mod statistics;

pub use alarm::{Alarm, Finding};
pub use algorithm_1::StepOutput;
pub use batch::Batch;
pub use bounds::{chance_loss, floor_loss, random_loss};
pub use build::{Execution, build_mechanism};
pub use config::{MechanismKind, MocoConfig, QueuePrecision};
pub use encoder_with_head::{EncoderWithHead, SavedForward};
pub use end_to_end::EndToEnd;
pub use error::MocoError;
pub use graph::CapturedSteps;
pub use health::{Health, HealthReport, Phase};
pub use inspect::{
    BeforeStep, ImageNumbers, Inspection, Inspector, KeyNumbers, Leak, MeasureLeak, WeightNumbers,
};
pub use mechanism::Mechanism;
pub use model::Moco;
pub use queue::Queue;
pub use shuffle::Shuffle;
pub use state::MocoState;
pub use statistics::{MeanStatistics, PendingStep, StepStatistics};
