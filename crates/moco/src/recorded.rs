//! Steps that a GPU repeats from a recording.

use candle_core::DType;
use moco_ops::{PendingStatistics, Recording};

use crate::error::MocoError;
use crate::inputs::Inputs;
use crate::statistics::PendingStep;
use crate::step::{Moco, StepViews};

/// Steps of a model on a GPU, of which the first of a shape is computed as ever, and the second is recorded
/// and then repeated ([`Recording`]): the host queues one thing a step in place of a thousand. What a step
/// computes is the same, to the bit.
///
/// The encoder's operations are those of `moco_ops`, and what its `forward` does on the host happens once.
#[derive(Debug, Default)]
pub struct RecordedSteps {
    /// What was computed before, so that all algorithms are chosen.
    warm: Option<(Shape, Vec<PendingStatistics>)>,
    recorded: Option<Recorded>,
}

/// Dimensions and type of the views.
type Shape = (Vec<usize>, DType);

struct Recorded {
    shape: Shape,
    /// That of the model.
    generation: u64,
    /// What each repetition reads.
    inputs: Inputs,
    /// What each repetition writes.
    statistics: Vec<PendingStatistics>,
    step: Recording,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl RecordedSteps {
    /// As [`Moco::step`], but for the tensors that a step computes on its way. The views have channels last in
    /// memory.
    ///
    /// # Errors
    /// As [`Moco::step`], or if the device cannot record.
    pub fn step(
        &mut self,
        moco: &mut Moco,
        views: &StepViews,
        lr: f64,
    ) -> Result<PendingStep, MocoError> {
        let shape = (views.im_q.dims().to_vec(), views.im_q.dtype());
        let statistics = match &self.warm {
            Some((warm, statistics)) if *warm == shape => statistics,
            _ => {
                let step = moco.step(views, lr)?.statistics;
                self.warm = Some((shape, step.directions.clone()));
                return Ok(step);
            }
        };
        let next = Inputs::next(moco, views, &moco.shuffles(views)?, lr)?;
        let generation = moco.generation;
        let fits =
            |recorded: &Recorded| recorded.shape == shape && recorded.generation == generation;
        let recorded = match self.recorded.take().filter(fits) {
            Some(recorded) => recorded,
            None => Recorded::new(moco, shape, &next, statistics)?,
        };
        let recorded = self.recorded.insert(recorded);
        recorded.inputs.replace(&next)?;
        recorded.step.repeat()?;
        let step = PendingStep::copy_of(moco.global_step(), &recorded.statistics)?;
        moco.advance(views);
        Ok(step)
    }
}

impl Recorded {
    fn new(
        moco: &mut Moco,
        shape: Shape,
        inputs: &Inputs,
        statistics: &[PendingStatistics],
    ) -> Result<Self, MocoError> {
        let device = moco.queue.keys().device().clone();
        let inputs = inputs.copy(&device)?;
        let statistics: Vec<_> =
            statistics.iter().map(PendingStatistics::copy).collect::<Result<_, _>>()?;
        let step = Recording::new(&device, || {
            let computed = moco.compute(&inputs)?;
            for (to, from) in statistics.iter().zip(&computed.statistics.directions) {
                to.replace(from)?;
            }
            Ok::<_, MocoError>(())
        })?;
        Ok(Self { shape, generation: moco.generation, inputs, statistics, step })
    }
}
