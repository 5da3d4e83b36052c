//! Adds steps up to a log line.

use std::time::{Duration, Instant};

use moco_core::{Health, HealthReport, StepOutput, Vitals};

use crate::event::LogLine;

/// Sums since the last log line, and the clock of the run.
#[derive(Debug)]
pub(crate) struct Tally {
    health: Health,
    n_directions: f64,
    sums: [f64; 5],
    steps: u32,
    waited: Duration,
    since: Instant,
    trained: Duration,
    trained_steps: u64,
}

/// A step's place in the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) global_step: u64,
    pub(crate) epoch: u64,
    pub(crate) lr: f64,
    pub(crate) steps_left: u64,
    pub(crate) batch_size: usize,
}

impl Tally {
    pub(crate) fn new(health: Health, is_symmetric: bool) -> Self {
        Self {
            health,
            n_directions: if is_symmetric { 2.0 } else { 1.0 },
            sums: [0.0; 5],
            steps: 0,
            waited: Duration::ZERO,
            since: Instant::now(),
            trained: Duration::ZERO,
            trained_steps: 0,
        }
    }

    /// Starts the clock again after something that is not training, such as an evaluation.
    pub(crate) fn resume_clock(&mut self) {
        self.since = Instant::now();
    }

    /// Stops the clock.
    pub(crate) fn pause_clock(&mut self) {
        self.trained += self.since.elapsed();
        self.since = Instant::now();
    }

    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    pub(crate) fn step(&mut self, global_step: u64, output: &StepOutput) -> HealthReport {
        let numbers = [
            output.loss,
            output.pretext_top1,
            output.pretext_top5,
            output.positive_cosine,
            output.negative_cosine,
        ];
        for (sum, number) in self.sums.iter_mut().zip(numbers) {
            *sum += number;
        }
        self.steps += 1;
        self.trained_steps += 1;
        self.health.observe(Vitals {
            global_step,
            loss: output.loss / self.n_directions,
            pretext_top1: output.pretext_top1,
            positive_cosine: output.positive_cosine,
            negative_cosine: output.negative_cosine,
        })
    }

    /// Images a second of training in this session.
    #[expect(clippy::cast_precision_loss, reason = "step counts stay far below 2^53")]
    pub(crate) fn images_per_second(&self, batch_size: usize) -> f64 {
        self.trained_steps as f64 * batch_size as f64 / self.trained.as_secs_f64().max(1e-9)
    }

    /// The line, and the start of the next one.
    #[expect(clippy::cast_precision_loss, reason = "step counts stay far below 2^53")]
    pub(crate) fn line(&mut self, place: Place, health: HealthReport) -> LogLine {
        let trained_before = self.trained;
        self.pause_clock();
        let seconds = (self.trained - trained_before).as_secs_f64().max(1e-9);
        let steps = f64::from(self.steps.max(1));
        let [loss, pretext_top1, pretext_top5, positive_cosine, negative_cosine] =
            self.sums.map(|sum| sum / steps);
        let line = LogLine {
            global_step: place.global_step,
            epoch: place.epoch,
            loss,
            lr: place.lr,
            pretext_top1,
            pretext_top5,
            positive_cosine,
            negative_cosine,
            images_per_second: steps * place.batch_size as f64 / seconds,
            data_wait_percent: 100.0 * self.waited.as_secs_f64() / seconds,
            eta_seconds: place.steps_left as f64 * place.batch_size as f64
                / self.images_per_second(place.batch_size),
            health,
        };
        self.sums = [0.0; 5];
        self.steps = 0;
        self.waited = Duration::ZERO;
        line
    }
}
