//! How steps are launched: eagerly, operation by operation, or as replays of a captured graph.

use moco::{Batch, CapturedSteps, Moco, PendingStep};

use super::args::Args;
use super::setup::LR;

pub(super) enum Stepper {
    Eager,
    Captured(Box<CapturedSteps>),
}

impl Stepper {
    pub(super) fn new(args: &Args) -> Self {
        if args.cuda_graph { Self::Captured(Box::default()) } else { Self::Eager }
    }

    pub(super) fn step(&mut self, moco: &mut Moco, views: &Batch) -> anyhow::Result<PendingStep> {
        Ok(match self {
            Self::Eager => moco.step(views, LR)?.statistics,
            Self::Captured(captured) => captured.step(moco, views, LR)?,
        })
    }
}
