//! The training loop.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moco::{
    Alarm, Batch, Execution, Health, HealthReport, Inspector, Mechanism, MocoError, PendingStep,
    Phase,
};
use moco_feed::{DeviceBatches, FeedError};
use moco_ingest::{BadSample, BadSamples, OverBudget, Source};
use moco_ops::{convolution_choices, varying_convolutions};
use moco_optim::Progress;
use moco_pipeline::{Sink, StageReport, bottleneck};
use moco_telemetry::MetricsWriter;

use crate::components::{Components, build_model};
use crate::error::{DataFault, TrainError};
use crate::evaluation::{Encoders, Evaluation};
use crate::event::{Event, LogLine, report};
use crate::features::placement_of;
use crate::identity::{DataOrigin, Origin};
use crate::measure::Evaluator;
use crate::metrics::Line;
use crate::plan::PretrainPlan;
use crate::run_folder::{BAD_SAMPLES, RunFolder};
use crate::run_state::RunState;
use crate::snapshot::{self, Snapshot};
use crate::start::{Start, Starting};
use crate::summary::Summary;
use crate::tally::{StepContext, StepRange, Tally};

/// Log lines that wait for the metrics writer.
const LINES_AHEAD: usize = 256;

/// How a run is watched and stopped.
pub struct Control<'a> {
    /// Set it to finish the step, save and stop.
    pub stop: &'a AtomicBool,
    /// Called on every event, which is in the log by then.
    pub observe: &'a mut (dyn FnMut(&Event<'_>) + Send),
}

impl Control<'_> {
    /// Logs an event and passes it on.
    fn report(&mut self, event: &Event<'_>) {
        report(self.observe, event);
    }
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("stop", self.stop).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All steps were done, and all was measured that the plan asks for.
    Finished(Box<Summary>),
    /// All steps were done and saved, but parts of the evaluation failed. A resume tries only these again.
    PartlyMeasured {
        /// What is there, and each failure.
        summary: Box<Summary>,
        /// The first failure.
        error: TrainError,
    },
    /// It was asked to stop; the checkpoint is durable.
    Stopped {
        /// Steps done.
        global_step: u64,
    },
}

/// Trains by Momentum Contrast, from the start or from a checkpoint, and evaluates at the end. The folder's
/// config goes into the checkpoints.
///
/// # Errors
/// If a checkpoint does not fit, a stage fails, the loss is not finite, or something cannot be written. What was
/// saved stays.
pub fn pretrain(
    plan: &PretrainPlan,
    components: Components,
    folder: &RunFolder,
    start: Start<'_>,
    mut control: Control<'_>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    let Components { sources, augmentation, encoder } = components;
    let n_images = sources.train.len();
    if let Some(what) = sources.train.left_out() {
        control.report(&Event::NoImages { of: "training", what: &what });
    }
    if let Some(what) = sources.labeled.as_ref().and_then(|data| data.test.left_out()) {
        control.report(&Event::NoImages { of: "test", what: &what });
    }
    let order = plan.training_order(sources.train.as_ref())?;
    let steps_per_epoch = order.sampler.steps_per_epoch();
    let total_steps = plan.length.steps(steps_per_epoch);
    let data = DataOrigin::of(&sources);
    let placement = placement_of(encoder.as_ref(), plan.precision.activations());
    let device = placement.device.clone();
    let evaluator = match sources.labeled {
        Some(data) => Some(Evaluator::new(data, plan, device.clone())?),
        None => None,
    };
    let mut random = encoder.fork()?;
    let execution = if plan.cuda_graph { Execution::Captured } else { Execution::Eager };
    let mut model = build_model(plan, encoder, execution)?;
    let starting = Starting { plan, folder, data, total_steps, steps_per_epoch };
    let begun = starting.begin(start, model.as_mut(), control.observe)?;
    let seconds_before = begun.wall_seconds;
    control.report(&Event::Started {
        global_step: model.global_step(),
        total_steps,
        steps_per_epoch,
        n_images,
        n_parameters: random.params().parameters().map(|(_, t)| t.elem_count()).sum(),
    });
    // A resume may be there only for what is missing of the evaluation.
    let was_trained = model.global_step() >= total_steps;
    let order = order.after_steps(model.global_step());
    let stages = plan.view_stages(placement);
    let batches = stages.training(&sources.train, augmentation, &order, plan.on_bad_sample)?;
    let mut metrics = MetricsWriter::append(&folder.file("metrics.jsonl"))?;
    let mut session = Session {
        plan,
        train: sources.train.as_ref(),
        total_steps,
        steps_per_epoch,
        evaluator: evaluator.as_ref(),
        tally: Tally::new(
            Health::new(&plan.moco, plan.batch_size, plan.encoder.bn_groups(), n_images),
            Inspector::new(plan.seed, plan.moco.temperature),
            StepRange { done: model.global_step(), total: total_steps },
        ),
        metrics: Sink::spawn("metrics", LINES_AHEAD, move |line: Line| Ok(metrics.write(&line)?))?,
        checkpoints: snapshot::writer(folder.checkpoints(plan.cadence.keep_checkpoints)?)?,
        folder,
        saved_step: Some(model.global_step()).filter(|step| *step > 0),
        started,
        seconds_before,
        bad_samples: BadSamples::listed_in(
            &folder.file(BAD_SAMPLES),
            plan.on_bad_sample,
            begun.n_bad_samples,
        )?,
        origin: &begun.origin,
        alarms: BTreeSet::new(),
        phases: BTreeSet::new(),
        reported_bank: false,
        pending: Vec::new(),
        epoch_meters: Vec::new(),
    };
    let completed = {
        let _span = tracing::debug_span!("training").entered();
        session.train(model.as_mut(), batches, &mut control)
    };
    session.bad_samples.save()?;
    let completed = completed?;
    let images_per_second = session.tally.images_per_second();
    let Session { metrics, checkpoints, bad_samples, .. } = session;
    checkpoints.finish()?;
    metrics.finish()?;
    if !completed {
        let global_step = model.global_step();
        return Ok(Outcome::Stopped { global_step });
    }
    let (global_step, run_id) = (model.global_step(), folder.id().to_string());
    let mut summary = Summary::new(&plan.evaluation, global_step, images_per_second);
    let mut seconds_before = seconds_before;
    if was_trained && let Some(old) = folder.summary(global_step)? {
        seconds_before = old.wall_seconds.max(seconds_before);
        summary = old.under(&plan.evaluation);
    }
    summary.run_id = Some(run_id);
    (summary.parent, summary.extensions) =
        (begun.origin.parent.clone(), begun.origin.extensions.clone());
    let evaluator = evaluator.as_ref();
    let evaluation = Evaluation {
        plan,
        folder,
        evaluator,
        bad_samples,
        device: &device,
        started,
        seconds_before,
        summary,
    };
    let trained = model.encoder_q_mut().encoder_mut();
    let encoders = Encoders { trained, random: random.as_mut() };
    Ok(match evaluation.run(encoders, control.observe)? {
        (summary, None) => Outcome::Finished(Box::new(summary)),
        (summary, Some(error)) => Outcome::PartlyMeasured { summary: Box::new(summary), error },
    })
}

/// One process's share of a run.
struct Session<'a> {
    plan: &'a PretrainPlan,
    train: &'a dyn Source,
    total_steps: u64,
    steps_per_epoch: u64,
    evaluator: Option<&'a Evaluator>,
    tally: Tally,
    metrics: Sink<Line>,
    checkpoints: Sink<Snapshot>,
    folder: &'a RunFolder,
    /// The step whose checkpoint is the newest.
    saved_step: Option<u64>,
    started: Instant,
    seconds_before: f64,
    origin: &'a Origin,
    /// Those in the batches that were trained on, and in the list also those of the batch after.
    bad_samples: BadSamples,
    /// Those reported already.
    alarms: BTreeSet<Alarm>,
    /// Those that were reported.
    phases: BTreeSet<Phase>,
    reported_bank: bool,
    /// Statistics that were not read yet.
    pending: Vec<PendingStep>,
    /// Totals of the data stages at the start of the epoch.
    epoch_meters: Vec<StageReport>,
}

impl Session<'_> {
    /// Runs to the last step; false if it was asked to stop before.
    fn train(
        &mut self,
        model: &mut dyn Mechanism,
        mut batches: DeviceBatches,
        control: &mut Control<'_>,
    ) -> Result<bool, TrainError> {
        let plan = self.plan;
        let first_step = model.global_step() + 1;
        for finding in self.tally.at_start() {
            self.alarms.insert(finding.alarm);
            control.report(&Event::Alarm { global_step: None, finding: &finding });
        }
        self.tally.resume_clock();
        while model.global_step() < self.total_steps {
            let asked = Instant::now();
            let batch = match batches.recv() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(source) => return Err(self.data_fault(source, model, control)?),
            };
            self.tally.waited(asked.elapsed());
            self.count(&batch.bad_samples, model, control)?;
            let progress = Progress {
                global_step: model.global_step(),
                total_steps: self.total_steps,
                steps_per_epoch: self.steps_per_epoch,
            };
            let lr = plan.schedule.lr(plan.lr, progress);
            let [im_q, im_k] = [0, 1].map(|view| batch.views[view].clone());
            let batch = Batch { im_q, im_k, sample_indices: batch.sample_indices };
            let next_step = model.global_step() + 1;
            let is_last = next_step == self.total_steps;
            let logs = is_due(next_step, plan.cadence.log_every) || is_last;
            // The first look of a session also sees where it starts.
            let looks = logs || next_step == first_step;
            let before = looks.then(|| self.tally.before(model, &batch)).transpose()?;
            let step = model.step(&batch, lr).map_err(|error| self.in_image(error))?;

            let global_step = model.global_step();
            self.tally.stepped(global_step, plan.batch_size);
            let (images_per_second, time_left) = self.tally.pace();
            control.report(&Event::Stepped { global_step, images_per_second, time_left });
            if global_step == first_step {
                report_varying_bits(model, control)?;
            }
            let stops = control.stop.load(Ordering::Relaxed) && !is_last;
            let saves = is_due(global_step, plan.cadence.checkpoint_every) || is_last || stops;
            // Reading makes the host wait for the GPU, which computes on meanwhile in all other steps.
            let reads = step.is_ready() || logs || saves;
            self.pending.push(step);
            let inspection = before.map(|before| self.tally.after(model, &batch, &before));
            let report = if reads { self.read()? } else { None };
            let sick = report.as_ref().filter(|_| plan.health.stop_on_collapse);
            let sick = sick.and_then(|report| report.why_collapsed().cloned());
            let (epoch, bad_samples) = (progress.epoch(), self.bad_samples.n_met());
            let context = StepContext { epoch, lr, bad_samples };
            if let (true, Some(inspection), Some(report)) = (logs, inspection.transpose()?, report)
                && let Some(line) = self.tally.line(context, report, inspection)
            {
                control.report(&Event::Log { line: &line, total_steps: self.total_steps });
                self.report_health(&line, control);
                self.metrics.send(Line::Step(Box::new(line)))?;
                self.bad_samples.save()?;
            }
            if global_step.is_multiple_of(self.steps_per_epoch) {
                self.end_epoch(&batches, global_step, progress.epoch(), control)?;
            }
            if is_due(global_step, plan.cadence.knn_every) && !is_last {
                self.monitor(model, control)?;
            }
            if saves || sick.is_some() {
                self.save(model, control)?;
            }
            if let Some(finding) = sick {
                return Err(TrainError::Unhealthy { global_step, finding });
            }
            if stops {
                return Ok(false);
            }
        }
        self.tally.pause_clock();
        Ok(true)
    }

    /// Reports a phase and alarms, each once.
    fn report_health(&mut self, line: &LogLine, control: &mut Control<'_>) {
        let (global_step, health) = (line.statistics.global_step, &line.health);
        if self.phases.insert(health.phase) {
            control.report(&Event::Phase { loss: line.statistics.loss, health });
        }
        for finding in &health.findings {
            if self.alarms.insert(finding.alarm) {
                let global_step = Some((global_step, health.phase));
                control.report(&Event::Alarm { global_step, finding });
            }
        }
    }

    /// Names the image that an error is about.
    fn in_image(&self, source: MocoError) -> TrainError {
        let image = match source {
            MocoError::ImageNotFinite { sample_index, .. } => self.train.read(sample_index).ok(),
            _ => None,
        };
        match image {
            Some(image) => TrainError::Image { image: image.key.to_string(), source },
            // The error has the image's index.
            None => source.into(),
        }
    }

    /// Takes in the statistics that wait; the verdict after the last of them.
    fn read(&mut self) -> Result<Option<HealthReport>, TrainError> {
        let mut report = None;
        for step in self.pending.drain(..) {
            report = Some(self.tally.observe(&step.read()?));
        }
        Ok(report)
    }

    /// Counts what a batch had to skip. Where that is over the budget, the state before the batch is saved.
    fn count(
        &mut self,
        skipped: &[BadSample],
        model: &dyn Mechanism,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let (global_step, n_before) = (model.global_step(), self.bad_samples.n_met());
        for sample in skipped {
            match self.bad_samples.admit(sample) {
                Ok(n_bad_samples) => {
                    control.report(&Event::Skipped { global_step, n_bad_samples, sample });
                }
                Err(OverBudget { budget, n_bad_samples }) => {
                    self.save_before_the_end(n_before, model, control)?;
                    let last = sample.clone();
                    return Err(TrainError::BadSampleBudget { budget, n_bad_samples, last });
                }
            }
        }
        Ok(())
    }

    /// The error of a run whose data failed. What was trained is on the disk by then.
    fn data_fault(
        &mut self,
        source: FeedError,
        model: &dyn Mechanism,
        control: &mut Control<'_>,
    ) -> Result<TrainError, TrainError> {
        self.save_before_the_end(self.bad_samples.n_met(), model, control)?;
        let (global_step, resume) = (model.global_step(), self.folder.resume_arguments());
        Ok(TrainError::Data { fault: DataFault::of(&source), global_step, resume, source })
    }

    /// Saves the state and waits until it is durable, unless there is nothing new in it.
    fn save_before_the_end(
        &mut self,
        n_bad_samples: u64,
        model: &dyn Mechanism,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let global_step = model.global_step();
        if global_step > 0 && self.saved_step != Some(global_step) {
            self.save_with(n_bad_samples, model, control)?;
            self.checkpoints.flush()?;
        }
        Ok(())
    }

    fn save(&mut self, model: &dyn Mechanism, control: &mut Control<'_>) -> Result<(), TrainError> {
        self.save_with(self.bad_samples.n_met(), model, control)
    }

    fn save_with(
        &mut self,
        n_bad_samples: u64,
        model: &dyn Mechanism,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let wall_seconds = self.seconds_before + self.started.elapsed().as_secs_f64();
        // A state that a loss of NaN went into is not saved.
        self.read()?;
        control.report(&Event::Saving { global_step: model.global_step() });
        // A resumed run continues after the checkpoint's step: its line must be in the file by then.
        self.metrics.flush()?;
        let run_state = RunState {
            config: self.folder.config().to_owned(),
            wall_seconds,
            n_bad_samples,
            convolutions: convolution_choices(model.device())?,
            origin: self.origin.clone(),
        };
        self.bad_samples.save()?;
        self.saved_step = Some(model.global_step());
        Ok(self.checkpoints.send(Snapshot::of(model, run_state)?)?)
    }

    fn monitor(
        &mut self,
        model: &mut dyn Mechanism,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let Some(evaluator) = self.evaluator else { return Ok(()) };
        let global_step = model.global_step();
        if evaluator.without_labels().is_some() {
            return Ok(());
        }
        self.tally.pause_clock();
        let _span = tracing::debug_span!("monitor", global_step).entered();
        let monitored = match evaluator.monitor(model.encoder_q_mut().encoder_mut()) {
            Err(TrainError::Feed(source)) => return Err(self.data_fault(source, model, control)?),
            Err(error @ TrainError::BadSampleBudget { .. }) => {
                self.save_before_the_end(self.bad_samples.n_met(), model, control)?;
                return Err(error);
            }
            monitored => monitored?,
        };
        for sample in &monitored.bad_samples {
            self.bad_samples.list(sample);
        }
        if !std::mem::replace(&mut self.reported_bank, true) {
            control.report(&Event::Bank(monitored.bank));
        }
        let (knn, n_test) = (monitored.knn, monitored.n_test);
        let n_skipped = monitored.bad_samples.len() as u64;
        self.metrics.send(Line::Monitor { step: global_step, knn })?;
        control.report(&Event::Monitor { global_step, knn, n_test, n_skipped });
        self.tally.resume_clock();
        Ok(())
    }

    fn end_epoch(
        &mut self,
        batches: &DeviceBatches,
        global_step: u64,
        epoch: u64,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let now = batches.meters();
        let stages: Vec<StageReport> = if self.epoch_meters.is_empty() {
            now.clone()
        } else {
            now.iter().zip(&self.epoch_meters).map(|(now, before)| now.since(before)).collect()
        };
        self.epoch_meters = now;
        for report in &stages {
            self.metrics.send(Line::Stage { step: global_step, report: report.clone() })?;
        }
        let bottleneck = bottleneck(&stages).map(|report| report.stage.as_str());
        control.report(&Event::Stages { epoch, stages: &stages, bottleneck });
        Ok(())
    }
}

/// Reports what a GPU cannot reproduce bit for bit; each convolution has its algorithm after a step.
fn report_varying_bits(model: &dyn Mechanism, control: &mut Control<'_>) -> Result<(), TrainError> {
    let choices = convolution_choices(model.device())?.unwrap_or_default();
    let convolutions = varying_convolutions(&choices);
    if !convolutions.is_empty() {
        control.report(&Event::BitsVary { convolutions: &convolutions });
    }
    Ok(())
}

/// Whether something that happens every `every` steps (0 = never) happens after this one.
fn is_due(global_step: u64, every: u64) -> bool {
    every > 0 && global_step.is_multiple_of(every)
}
