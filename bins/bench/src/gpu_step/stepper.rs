//! How steps are queued: told operation by operation, or repeated from a recording.

use moco::{Moco, PendingStep, RecordedSteps, StepViews};

use super::args::Args;
use super::setup::LR;

pub(super) enum Stepper {
    Told,
    Repeated(RecordedSteps),
}

impl Stepper {
    pub(super) fn new(args: &Args) -> Self {
        if args.cuda_graph { Self::Repeated(RecordedSteps::default()) } else { Self::Told }
    }

    pub(super) fn step(
        &mut self,
        moco: &mut Moco,
        views: &StepViews,
    ) -> anyhow::Result<PendingStep> {
        Ok(match self {
            Self::Told => moco.step(views, LR)?.statistics,
            Self::Repeated(recorded) => recorded.step(moco, views, LR)?,
        })
    }
}
