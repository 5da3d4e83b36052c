//! From a configuration to the mechanism that it names.

use candle_core::Device;
use moco_encoders::{Encoder, HeadKind};
use moco_optim::OptimizerConfig;
use moco_rng::Seed;

use crate::batch::Batch;
use crate::config::{MechanismKind, MocoConfig};
use crate::encoder_with_head::EncoderWithHead;
use crate::end_to_end::EndToEnd;
use crate::error::MocoError;
use crate::graph::CapturedSteps;
use crate::inspect::Leak;
use crate::mechanism::Mechanism;
use crate::model::Moco;
use crate::queue::Queue;
use crate::state::MocoState;
use crate::statistics::PendingStep;

/// How a device gets the operations of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// One launch for each.
    Eager,
    /// As a captured CUDA graph that is replayed ([`CapturedSteps`]); the queue on a GPU only.
    Captured,
}

/// The mechanism that a configuration names, at its start.
///
/// # Errors
/// As [`Moco::new`] and [`EndToEnd::new`], or if the mechanism cannot be captured.
pub fn build_mechanism(
    encoder: Box<dyn Encoder>,
    head: HeadKind,
    config: MocoConfig,
    optimizer: OptimizerConfig,
    seed: Seed,
    execution: Execution,
) -> Result<Box<dyn Mechanism>, MocoError> {
    Ok(match (config.mechanism, execution) {
        (MechanismKind::Queue, _) => {
            let moco = Moco::new(encoder, head, config, optimizer, seed)?;
            let captured = (execution == Execution::Captured).then(CapturedSteps::default);
            Box::new(Queued { moco, captured })
        }
        (MechanismKind::EndToEnd, Execution::Eager) => {
            Box::new(EndToEnd::new(encoder, head, config, optimizer, seed)?)
        }
        (MechanismKind::EndToEnd, Execution::Captured) => {
            return Err(MocoError::NeedsCpu { what: "the end-to-end mechanism" });
        }
    })
}

/// The queue, with its steps eager or captured.
#[derive(Debug)]
struct Queued {
    moco: Moco,
    captured: Option<CapturedSteps>,
}

impl Mechanism for Queued {
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<PendingStep, MocoError> {
        match &mut self.captured {
            Some(captured) => captured.step(&mut self.moco, batch, lr),
            None => Ok(self.moco.step(batch, lr)?.statistics),
        }
    }

    fn state(&self) -> Result<MocoState, MocoError> {
        self.moco.state()
    }

    fn load_state(&mut self, state: &MocoState, global_step: u64) -> Result<(), MocoError> {
        self.moco.load_state(state, global_step)
    }

    fn global_step(&self) -> u64 {
        self.moco.global_step()
    }

    fn device(&self) -> &Device {
        self.moco.device()
    }

    fn encoder_q_mut(&mut self) -> &mut EncoderWithHead {
        self.moco.encoder_q_mut()
    }

    fn encoders(&self) -> [&EncoderWithHead; 2] {
        [self.moco.encoder_q(), self.moco.encoder_k()]
    }

    fn queue(&self) -> Option<&Queue> {
        Some(self.moco.queue())
    }

    fn leak(&self, seed: Seed, batch: &Batch) -> Result<Leak, MocoError> {
        self.moco.leak(seed, batch)
    }
}
