//! What a step tells about itself, for people and for health rules.

use moco_ops::{InfoNceStatistics, PendingStatistics};

use crate::error::MocoError;

/// Numbers of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStatistics {
    /// Steps done, this one included.
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

/// Statistics of a step that a GPU may still be computing. They hold a few bytes a query, so those of
/// many steps can wait until a log line is due.
#[derive(Debug, Clone)]
pub struct PendingStep {
    /// Steps done before.
    pub(crate) global_step: u64,
    /// One a direction of the loss.
    pub(crate) directions: Vec<PendingStatistics>,
}

impl PendingStep {
    /// A step's statistics in memory that no repetition overwrites.
    pub(crate) fn copy_of(
        global_step: u64,
        directions: &[PendingStatistics],
    ) -> Result<Self, MocoError> {
        let directions = directions.iter().map(PendingStatistics::copy);
        Ok(Self { global_step, directions: directions.collect::<Result<_, _>>()? })
    }

    /// Whether reading costs nothing, as on a CPU: else the host waits for the GPU.
    #[must_use]
    pub fn is_at_hand(&self) -> bool {
        self.directions.iter().all(PendingStatistics::is_at_hand)
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
            return Err(if self.is_at_hand() {
                MocoError::NotFinite { global_step, loss }
            } else {
                MocoError::NotFiniteOnDevice { global_step, loss }
            });
        }
        Ok(summarize(self.global_step + 1, loss, &directions))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
fn summarize(global_step: u64, loss: f64, directions: &[InfoNceStatistics]) -> StepStatistics {
    let ahead: Vec<u32> = directions.iter().flat_map(|d| d.ahead.iter().copied()).collect();
    let within = |best: u32| {
        let right = ahead.iter().filter(|ahead| **ahead < best).count();
        100.0 * right as f64 / ahead.len() as f64
    };
    let mean = |f: fn(&InfoNceStatistics) -> f64| {
        directions.iter().map(f).sum::<f64>() / directions.len() as f64
    };
    StepStatistics {
        global_step,
        loss,
        pretext_top1: within(1),
        pretext_top5: within(5),
        positive_cosine: mean(|d| d.positive_cosine),
        negative_cosine: mean(|d| d.negative_cosine),
    }
}
