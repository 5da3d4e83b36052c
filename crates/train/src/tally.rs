//! Adds steps up to a log line.

use std::time::{Duration, Instant};

use moco::{
    Batch, BeforeStep, Finding, Health, HealthReport, Inspection, Inspector, MeanStatistics,
    Mechanism, MocoError, StepStatistics,
};
use moco_telemetry::{Eta, Throughput};

use crate::event::LogLine;

/// Images a second are averaged over this much training time.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// Statistics since the last log line, and a clock that runs while training does.
#[derive(Debug)]
pub(crate) struct Tally {
    health: Health,
    inspector: Inspector,
    /// Of the steps since the last log line.
    mean: MeanStatistics,
    waited: Duration,
    line_began: Duration,
    clock: Clock,
    throughput: Throughput,
    eta: Eta,
}

/// Training time: evaluations do not count.
#[derive(Debug)]
struct Clock {
    before: Duration,
    since: Instant,
}

impl Clock {
    fn now(&self) -> Duration {
        self.before + self.since.elapsed()
    }
}

/// The parts of a log line about its last step other than the statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepContext {
    pub(crate) epoch: u64,
    pub(crate) lr: f64,
    pub(crate) bad_samples: u64,
}

/// The steps of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepRange {
    /// Steps done before.
    pub(crate) done: u64,
    /// Steps of the whole run.
    pub(crate) total: u64,
}

impl Tally {
    pub(crate) fn new(health: Health, inspector: Inspector, steps: StepRange) -> Self {
        Self {
            health,
            inspector,
            mean: MeanStatistics::default(),
            waited: Duration::ZERO,
            line_began: Duration::ZERO,
            clock: Clock { before: Duration::ZERO, since: Instant::now() },
            throughput: Throughput::new(RATE_WINDOW, Duration::ZERO),
            eta: Eta::new(steps.total, steps.done),
        }
    }

    /// Runs the clock, after something that is not training.
    pub(crate) fn resume_clock(&mut self) {
        self.clock.since = Instant::now();
    }

    /// Stops the clock.
    pub(crate) fn pause_clock(&mut self) {
        self.clock = Clock { before: self.clock.now(), since: Instant::now() };
    }

    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// A step was done, or handed to the GPU.
    pub(crate) fn stepped(&mut self, global_step: u64, batch_size: usize) {
        let now = self.clock.now();
        self.throughput.record(now, batch_size as u64);
        self.eta.tick(now, global_step);
    }

    /// Images a second over the last minute, and the time to the last step.
    pub(crate) fn pace(&self) -> (f64, Option<Duration>) {
        let now = self.clock.now();
        (self.throughput.recent(now).unwrap_or(0.0), self.eta.remaining(now))
    }

    /// What the settings say before the first step.
    pub(crate) fn at_start(&self) -> Vec<Finding> {
        self.health.at_start()
    }

    /// Looks at the model before the step on a batch.
    pub(crate) fn before(
        &mut self,
        model: &dyn Mechanism,
        batch: &Batch,
    ) -> Result<BeforeStep, MocoError> {
        self.inspector.before(model, batch, self.health.suspects_leak())
    }

    /// Looks at the model after that step.
    pub(crate) fn after(
        &mut self,
        model: &dyn Mechanism,
        batch: &Batch,
        before: &BeforeStep,
    ) -> Result<Inspection, MocoError> {
        let inspection = self.inspector.after(model, batch, before)?;
        self.health.inspect(&inspection);
        Ok(inspection)
    }

    /// The statistics of a step are there.
    pub(crate) fn observe(&mut self, step: &StepStatistics) -> HealthReport {
        self.mean.add(step);
        self.health.observe(step)
    }

    /// Images a second of training in this session; call it with the clock paused.
    pub(crate) fn images_per_second(&self) -> f64 {
        self.throughput.overall(self.clock.before).unwrap_or(0.0)
    }

    /// The line, and the start of the next one; `None` if no step was observed since the last.
    pub(crate) fn line(
        &mut self,
        context: StepContext,
        health: HealthReport,
        inspection: Inspection,
    ) -> Option<LogLine> {
        let statistics = self.mean.take()?;
        let (images_per_second, time_left) = self.pace();
        let now = self.clock.now();
        let seconds = (now - self.line_began).as_secs_f64().max(1e-9);
        let line = LogLine {
            statistics,
            epoch: context.epoch,
            lr: context.lr,
            images_per_second,
            data_wait_percent: 100.0 * self.waited.as_secs_f64() / seconds,
            bad_samples: context.bad_samples,
            time_left,
            health,
            inspection,
        };
        self.waited = Duration::ZERO;
        self.line_began = now;
        Some(line)
    }
}
