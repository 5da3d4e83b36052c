//! The seam between a training loop and the mechanism that it trains by.

use std::fmt::Debug;

use candle_core::Device;
use moco_rng::Seed;

use crate::batch::Batch;
use crate::encoder_with_head::EncoderWithHead;
use crate::error::MocoError;
use crate::inspect::Leak;
use crate::queue::Queue;
use crate::state::MocoState;
use crate::statistics::PendingStep;

/// A mechanism of contrastive learning (MoCo v1 Figure 2): where the negatives come from, and what the
/// gradient reaches. [`Moco`](crate::Moco) takes them from a queue, [`EndToEnd`](crate::EndToEnd) from the batch.
///
/// Your own mechanism goes into the training loop instead of these.
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

    /// The model's device.
    fn device(&self) -> &Device;

    /// f_q: the encoder that is evaluated and exported.
    fn encoder_q_mut(&mut self) -> &mut EncoderWithHead;

    /// f_q and f_k, to look at.
    fn encoders(&self) -> [&EncoderWithHead; 2];

    /// The negatives; `None` where they are those of the batch.
    fn queue(&self) -> Option<&Queue>;

    /// Pretext accuracies of the next step's batch with its keys in the groups of training and in other ones,
    /// drawn for this purpose from `seed`. Changes nothing.
    ///
    /// # Errors
    /// If the images do not fit.
    fn leak(&self, seed: Seed, batch: &Batch) -> Result<Leak, MocoError>;
}
