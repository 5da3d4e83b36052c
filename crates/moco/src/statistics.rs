//! The statistics of a training step: for people, for `metrics.jsonl` and for the health rules.

use moco_ops::{InfoNceStatistics, PendingStatistics};
use serde::Serialize;

use crate::batch::Batch;
use crate::error::MocoError;

/// Statistics of a step, or their means over several steps. One record serves the training loop, the
/// health rules and the line of `metrics.jsonl`, where `global_step` is called `step`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StepStatistics {
    /// Steps done, this one included.
    #[serde(rename = "step")]
    pub global_step: u64,
    /// The loss; the sum of both directions if symmetric.
    pub loss: f64,
    /// Share of queries whose positive beats all negatives, in percent.
    pub pretext_top1: f64,
    /// Share of queries whose positive is among the best five, in percent.
    pub pretext_top5: f64,
    /// Mean cosine of query and positive.
    pub positive_cosine: f64,
    /// Mean cosine of query and negatives.
    pub negative_cosine: f64,
}

/// Statistics that a GPU may still be computing. They take a few bytes a query, so those of many steps can
/// wait until a log line is due.
#[derive(Debug, Clone)]
pub struct PendingStep {
    /// Steps done before.
    pub(crate) global_step: u64,
    /// One a direction of the loss.
    pub(crate) directions: Vec<PendingStatistics>,
}

impl PendingStep {
    /// A copy that no replay of the step overwrites.
    pub(crate) fn copy_of(
        global_step: u64,
        directions: &[PendingStatistics],
    ) -> Result<Self, MocoError> {
        let directions = directions.iter().map(PendingStatistics::copy);
        Ok(Self { global_step, directions: directions.collect::<Result<_, _>>()? })
    }

    /// True if [`PendingStep::read`] returns at once; on a GPU it synchronizes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.directions.iter().all(PendingStatistics::is_ready)
    }

    /// Refuses a loss that is NaN or infinite, and names the image if one is the cause. On a GPU nothing is
    /// looked at, since the host would have to wait: [`PendingStep::read`] does.
    pub(crate) fn expect_finite_loss(&self, batch: &Batch) -> Result<(), MocoError> {
        if !self.is_ready() {
            return Ok(());
        }
        let Err(error) = self.read() else { return Ok(()) };
        let global_step = self.global_step;
        Err(match batch.first_image_not_finite()? {
            Some((view, sample_index)) => {
                MocoError::ImageNotFinite { view, sample_index, global_step }
            }
            None => error,
        })
    }

    /// The numbers.
    ///
    /// # Errors
    /// If the loss is not finite or something failed on the device.
    pub fn read(&self) -> Result<StepStatistics, MocoError> {
        let directions: Vec<InfoNceStatistics> =
            self.directions.iter().map(PendingStatistics::read).collect::<Result<_, _>>()?;
        let loss: f64 = directions.iter().map(|d| d.loss).sum();
        if !loss.is_finite() {
            let global_step = self.global_step;
            return Err(if self.is_ready() {
                MocoError::NotFinite { global_step, loss }
            } else {
                MocoError::NotFiniteOnDevice { global_step, loss }
            });
        }
        Ok(summarize(self.global_step + 1, loss, &directions))
    }
}

/// The mean of the statistics of steps, in constant memory for any number of them.
#[derive(Debug, Default)]
pub struct MeanStatistics {
    n_steps: usize,
    /// The numbers are sums over the steps; `global_step` is that of the last one.
    sums: StepStatistics,
}

impl MeanStatistics {
    /// Adds a step.
    pub fn add(&mut self, step: &StepStatistics) {
        self.n_steps += 1;
        self.sums = StepStatistics {
            global_step: step.global_step,
            loss: self.sums.loss + step.loss,
            pretext_top1: self.sums.pretext_top1 + step.pretext_top1,
            pretext_top5: self.sums.pretext_top5 + step.pretext_top5,
            positive_cosine: self.sums.positive_cosine + step.positive_cosine,
            negative_cosine: self.sums.negative_cosine + step.negative_cosine,
        };
    }

    /// The mean, with the number of the last step, and a fresh start; `None` if no step was added.
    pub fn take(&mut self) -> Option<StepStatistics> {
        let Self { n_steps, sums } = std::mem::take(self);
        let n = count(n_steps);
        (n_steps > 0).then(|| StepStatistics {
            global_step: sums.global_step,
            loss: sums.loss / n,
            pretext_top1: sums.pretext_top1 / n,
            pretext_top5: sums.pretext_top5 / n,
            positive_cosine: sums.positive_cosine / n,
            negative_cosine: sums.negative_cosine / n,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "batches and steps are far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

fn summarize(global_step: u64, loss: f64, directions: &[InfoNceStatistics]) -> StepStatistics {
    let ranks: Vec<u32> = directions.iter().flat_map(|d| d.positive_rank.iter().copied()).collect();
    let top = |best: u32| {
        let right = ranks.iter().filter(|rank| **rank < best).count();
        100.0 * count(right) / count(ranks.len())
    };
    let mean = |f: fn(&InfoNceStatistics) -> f64| {
        directions.iter().map(f).sum::<f64>() / count(directions.len())
    };
    StepStatistics {
        global_step,
        loss,
        pretext_top1: top(1),
        pretext_top5: top(5),
        positive_cosine: mean(|d| d.positive_cosine),
        negative_cosine: mean(|d| d.negative_cosine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_starts_afresh_and_keeps_the_last_step() {
        let step = |global_step: u64, x: f64| StepStatistics {
            global_step,
            loss: x,
            pretext_top1: 10.0 * x,
            pretext_top5: 20.0 * x,
            positive_cosine: 0.25 * x,
            negative_cosine: 0.125 * x,
        };
        let mut mean = MeanStatistics::default();
        assert_eq!(mean.take(), None);
        for (global_step, x) in [(7, 1.0), (8, 3.0), (9, 5.0)] {
            mean.add(&step(global_step, x));
        }
        assert_eq!(mean.take(), Some(step(9, 3.0)));
        mean.add(&step(10, 4.0));
        assert_eq!(mean.take(), Some(step(10, 4.0)));
        assert_eq!(mean.take(), None);
    }
}
