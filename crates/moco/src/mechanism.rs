//! The seam between a training loop and the mechanism that it trains by.

use std::fmt::Debug;

use candle_core::Device;
use moco_encoders::{Encoder, HeadKind};
use moco_optim::SgdConfig;
use moco_rng::Seed;

use crate::batch::Batch;
use crate::config::{MechanismKind, MocoConfig};
use crate::encoder_with_head::EncoderWithHead;
use crate::end_to_end::EndToEnd;
use crate::error::MocoError;
use crate::graph::CapturedSteps;
use crate::model::Moco;
use crate::state::MocoState;
use crate::statistics::PendingStep;

/// A mechanism of contrastive learning (MoCo v1 Figure 2): where the negatives come from, and what the
/// gradient reaches. [`Moco`] takes them from a queue, [`EndToEnd`] from the batch.
///
/// A mechanism of one's own goes into the training loop in place of these.
pub trait Mechanism: Debug {
    /// One step of training on a batch.
    ///
    /// # Errors
    /// If the images do not fit, or the loss is not finite.
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<PendingStep, MocoError>;

    /// All that a checkpoint holds, by name. The tensors share memory with the model: copy or write them
    /// before the next step.
    ///
    /// # Errors
    /// If candle fails.
    fn state(&self) -> Result<MocoState, MocoError>;

    /// Replaces the state by copies of these tensors, and the number of steps done.
    ///
    /// # Errors
    /// If a tensor is missing, unknown or of another shape; then the model is not usable any more.
    fn load_state(&mut self, state: &MocoState, global_step: u64) -> Result<(), MocoError>;

    /// Steps done.
    fn global_step(&self) -> u64;

    /// Where the model computes.
    fn device(&self) -> &Device;

    /// f_q: the encoder that is evaluated and exported.
    fn encoder_q_mut(&mut self) -> &mut EncoderWithHead;

    /// From now on, replay each step as a captured CUDA graph.
    ///
    /// # Errors
    /// If the mechanism cannot.
    fn capture_steps(&mut self) -> Result<(), MocoError>;
}

/// The mechanism that a configuration names, at its start.
///
/// # Errors
/// As [`Moco::new`] and [`EndToEnd::new`].
pub fn build_mechanism(
    encoder: Box<dyn Encoder>,
    head: HeadKind,
    config: MocoConfig,
    sgd: SgdConfig,
    seed: Seed,
) -> Result<Box<dyn Mechanism>, MocoError> {
    Ok(match config.mechanism {
        MechanismKind::Queue => Box::new(Moco::new(encoder, head, config, sgd, seed)?),
        MechanismKind::EndToEnd => Box::new(EndToEnd::new(encoder, head, config, sgd, seed)?),
    })
}

impl Mechanism for Moco {
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<PendingStep, MocoError> {
        let Some(mut captured) = self.captured.take() else {
            return Ok(Self::step(self, batch, lr)?.statistics);
        };
        let step = captured.step(self, batch, lr);
        self.captured = Some(captured);
        step
    }

    fn state(&self) -> Result<MocoState, MocoError> {
        Self::state(self)
    }

    fn load_state(&mut self, state: &MocoState, global_step: u64) -> Result<(), MocoError> {
        Self::load_state(self, state, global_step)
    }

    fn global_step(&self) -> u64 {
        Self::global_step(self)
    }

    fn device(&self) -> &Device {
        Self::device(self)
    }

    fn encoder_q_mut(&mut self) -> &mut EncoderWithHead {
        Self::encoder_q_mut(self)
    }

    fn capture_steps(&mut self) -> Result<(), MocoError> {
        self.captured = Some(CapturedSteps::default());
        Ok(())
    }
}
