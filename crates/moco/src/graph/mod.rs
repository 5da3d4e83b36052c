//! Steps that a GPU replays as a captured CUDA graph. The method itself is in `algorithm_1.rs`.

mod inputs;

use candle_core::DType;
use moco_ops::{PendingStatistics, Recording};

use crate::batch::{Batch, StepInputs};
use crate::error::MocoError;
use crate::model::Moco;
use crate::statistics::PendingStep;

/// Runs the first step of each input shape eagerly, captures the second as a CUDA graph ([`Recording`]),
/// and replays it from then on: the host queues one launch per step instead of a thousand. A replayed step
/// has the bits of an eager one.
///
/// The encoder's operations must be those of `moco_ops`; what its `forward` does on the host happens once.
#[derive(Debug, Default)]
pub struct CapturedSteps {
    /// The shape of the last eager step, in which every algorithm was chosen, and its statistics.
    warm: Option<(Shape, Vec<PendingStatistics>)>,
    captured: Option<Captured>,
}

/// Dimensions and type of the views.
type Shape = (Vec<usize>, DType);

struct Captured {
    shape: Shape,
    /// The model's generation when the step was captured.
    generation: u64,
    /// The tensors that each replay reads.
    inputs: StepInputs,
    /// The tensors that each replay writes.
    statistics: Vec<PendingStatistics>,
    step: Recording,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl CapturedSteps {
    /// As [`Moco::step`], but only the statistics come back. The views have channels last in memory.
    ///
    /// # Errors
    /// As [`Moco::step`], or if the device cannot capture.
    pub fn step(
        &mut self,
        moco: &mut Moco,
        batch: &Batch,
        lr: f64,
    ) -> Result<PendingStep, MocoError> {
        let shape = (batch.im_q.dims().to_vec(), batch.im_q.dtype());
        let statistics = match &self.warm {
            Some((warm, statistics)) if *warm == shape => statistics,
            _ => {
                let step = moco.step(batch, lr)?.statistics;
                self.warm = Some((shape, step.directions.clone()));
                return Ok(step);
            }
        };
        let next = moco.inputs(batch, &moco.shuffles(batch)?, lr)?;
        let generation = moco.generation;
        let fits =
            |captured: &Captured| captured.shape == shape && captured.generation == generation;
        let captured = match self.captured.take().filter(fits) {
            Some(captured) => captured,
            None => Captured::new(moco, shape, &next, statistics)?,
        };
        let captured = self.captured.insert(captured);
        captured.inputs.overwrite(&next)?;
        captured.step.repeat()?;
        let step = PendingStep::copy_of(moco.global_step(), &captured.statistics)?;
        moco.advance(batch);
        Ok(step)
    }
}

impl Captured {
    fn new(
        moco: &mut Moco,
        shape: Shape,
        inputs: &StepInputs,
        statistics: &[PendingStatistics],
    ) -> Result<Self, MocoError> {
        let device = moco.device().clone();
        let inputs = inputs.deep_copy(&device)?;
        let statistics: Vec<_> =
            statistics.iter().map(PendingStatistics::copy).collect::<Result<_, _>>()?;
        let step = Recording::new(&device, || {
            let output = moco.algorithm_1(&inputs)?;
            for (to, from) in statistics.iter().zip(&output.statistics.directions) {
                to.replace(from)?;
            }
            Ok::<_, MocoError>(())
        })?;
        Ok(Self { shape, generation: moco.generation, inputs, statistics, step })
    }
}
