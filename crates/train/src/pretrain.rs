//! The training loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moco::{Alarm, Batch, CapturedSteps, Health, HealthReport, Moco, PendingStep};
use moco_augment::Augmentation;
use moco_checkpoint::Newest;
use moco_encoders::Encoder;
use moco_ops::{
    convolution_choices, peak_device_memory_bytes, prefer_convolution_choices, varying_convolutions,
};
use moco_optim::Progress;
use moco_pipeline::{Sink, StageReport, bottleneck};
use moco_telemetry::{MetricsWriter, peak_memory_bytes, truncate_after};

use crate::bad_sample::BadSample;
use crate::error::TrainError;
use crate::event::Event;
use crate::feeds::{DeviceFeed, Target, train_feed, train_sampler};
use crate::measure::Evaluator;
use crate::metrics::Line;
use crate::plan::{Length, OnBadSample, PretrainPlan};
use crate::run_folder::RunFolder;
use crate::snapshot::{self, Snapshot};
use crate::sources::Sources;
use crate::summary::{Summary, Trio};
use crate::tally::{Place, Tally};

/// Log lines that wait for the metrics writer.
const LINES_AHEAD: usize = 256;

/// The exchangeable parts of a run: put your own in.
pub struct Parts {
    /// Images.
    pub sources: Sources,
    /// What makes two views of an image.
    pub augmentation: Arc<dyn Augmentation>,
    /// The backbone with its initial values, on the device that is to train it; the head comes from the
    /// plan.
    pub encoder: Box<dyn Encoder>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How a run is watched and stopped.
pub struct Control<'a> {
    /// Set it to finish the step, save and stop.
    pub stop: &'a AtomicBool,
    /// Is told what happens.
    pub observe: &'a mut (dyn FnMut(&Event<'_>) + Send),
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("stop", self.stop).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps were done.
    Finished(Summary),
    /// It was asked to stop; the checkpoint is durable.
    Stopped {
        /// Steps done.
        global_step: u64,
        /// The run's folder, to resume.
        run: PathBuf,
    },
}

/// Trains by Momentum Contrast, from the start or from a checkpoint of the same run, and evaluates at
/// the end. `config` is the text that goes into the checkpoints.
///
/// # Errors
/// If a stage fails, the loss is not finite, or something cannot be written. What was saved stays.
pub fn pretrain(
    plan: &PretrainPlan,
    parts: Parts,
    (folder, config): (&RunFolder, &str),
    newest: Option<&Newest>,
    mut control: Control<'_>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    let Parts { sources, augmentation, encoder } = parts;
    let n_images = sources.train.len();
    let sampler = train_sampler(plan, sources.train.as_ref())?;
    let steps_per_epoch = sampler.steps_per_epoch();
    let total_steps = match plan.length {
        Length::Steps(steps) => steps,
        Length::Epochs(epochs) => epochs * steps_per_epoch,
    };
    let target = Target::of(encoder.as_ref(), plan.precision.activations());
    let evaluator = match sources.labeled {
        Some(data) => Some(Evaluator::new(data, plan, target.device.clone())?),
        None => None,
    };
    let mut random = encoder.fork()?;
    let mut moco = Moco::new(encoder, plan.head, plan.moco.clone(), plan.optimizer, plan.seed)?;
    let metrics_file = folder.file("metrics.jsonl");
    let (mut seconds_before, mut n_bad_samples) = (0.0, 0);
    if let Some(newest) = newest {
        for rejected in &newest.rejected {
            let (path, reason) = (rejected.path.clone(), rejected.reason.to_string());
            (control.observe)(&Event::Rejected { path, reason });
        }
        let state = snapshot::state(&newest.checkpoint, &newest.path)?;
        moco.load_state(&state, newest.checkpoint.global_step)?;
        if let Some(choices) = snapshot::convolutions(&newest.checkpoint)
            && let Some(outdated) = prefer_convolution_choices(&target.device, choices)?
        {
            (control.observe)(&Event::ChosenAnew { outdated: &outdated });
        }
        seconds_before = snapshot::wall_seconds(&newest.checkpoint);
        n_bad_samples = snapshot::n_bad_samples(&newest.checkpoint);
        truncate_after(&metrics_file, newest.checkpoint.global_step)?;
    }
    (control.observe)(&Event::Started {
        global_step: moco.global_step(),
        total_steps,
        steps_per_epoch,
        n_images,
        n_parameters: random.params().parameters().map(|(_, t)| t.elem_count()).sum(),
    });
    let position = moco.global_step() * plan.batch_size as u64;
    let feed = train_feed(
        &sources.train,
        augmentation,
        (sampler, position),
        (plan.seed, plan.batch_size),
        (&plan.input, plan.workers, &target),
        plan.on_bad_sample,
    )?;
    let mut metrics = MetricsWriter::append(&metrics_file)?;
    let mut session = Session {
        plan,
        total_steps,
        steps_per_epoch,
        evaluator: evaluator.as_ref(),
        tally: Tally::new(
            Health::new(&plan.moco, plan.batch_size, n_images),
            (total_steps, moco.global_step()),
        ),
        metrics: Sink::spawn("metrics", LINES_AHEAD, move |line: Line| Ok(metrics.write(&line)?))?,
        checkpoints: snapshot::writer(folder.checkpoints(plan.cadence.keep_checkpoints)?)?,
        config,
        started,
        seconds_before,
        n_bad_samples,
        captured: plan.cuda_graph.then(CapturedSteps::default),
        pending: Vec::new(),
        epoch_meters: Vec::new(),
    };
    let completed = session.train(&mut moco, feed, &mut control)?;
    let images_per_second = session.tally.images_per_second();
    let Session { metrics, checkpoints, .. } = session;
    checkpoints.finish()?;
    metrics.finish()?;
    if !completed {
        let global_step = moco.global_step();
        return Ok(Outcome::Stopped { global_step, run: folder.path().to_owned() });
    }
    let mut summary = Summary {
        knn: Trio::default(),
        knn_n_neighbors: plan.evaluation.knn.n_neighbors,
        knn_temperature: plan.evaluation.knn.temperature,
        linear: Trio::default(),
        steps: moco.global_step(),
        images_per_second,
        wall_seconds: 0.0,
        peak_memory_bytes: None,
        peak_device_memory_bytes: None,
        final_checkpoint: format!("checkpoints/step-{:010}.safetensors", moco.global_step()),
    };
    if let (true, Some(evaluator)) = (plan.evaluation.at_end, &evaluator) {
        (control.observe)(&Event::Evaluating { what: "pixels" });
        summary.put(|trio| &mut trio.pixels, evaluator.pixels()?);
        (control.observe)(&Event::Evaluating { what: "random encoder" });
        summary.put(|trio| &mut trio.random, evaluator.random_encoder(random.as_mut())?);
        (control.observe)(&Event::Evaluating { what: "trained encoder" });
        let trained = moco.encoder_q_mut().encoder_mut();
        summary.put(|trio| &mut trio.trained, evaluator.encoder(trained)?);
    }
    summary.wall_seconds = seconds_before + started.elapsed().as_secs_f64();
    summary.peak_memory_bytes = peak_memory_bytes().ok();
    summary.peak_device_memory_bytes = peak_device_memory_bytes(&target.device)?;
    folder.write_summary(&summary)?;
    Ok(Outcome::Finished(summary))
}

/// One process's share of a run.
struct Session<'a> {
    plan: &'a PretrainPlan,
    total_steps: u64,
    steps_per_epoch: u64,
    evaluator: Option<&'a Evaluator>,
    tally: Tally,
    metrics: Sink<Line>,
    checkpoints: Sink<Snapshot>,
    config: &'a str,
    started: Instant,
    seconds_before: f64,
    /// Those in the batches that were trained on.
    n_bad_samples: u64,
    /// Where a GPU replays captured steps.
    captured: Option<CapturedSteps>,
    /// Statistics that were not read yet.
    pending: Vec<PendingStep>,
    /// Totals of the data stages at the start of the epoch.
    epoch_meters: Vec<StageReport>,
}

impl Session<'_> {
    /// Runs to the last step; false if it was asked to stop before.
    fn train(
        &mut self,
        moco: &mut Moco,
        mut feed: DeviceFeed,
        control: &mut Control<'_>,
    ) -> Result<bool, TrainError> {
        let plan = self.plan;
        let first_step = moco.global_step() + 1;
        self.tally.resume_clock();
        while moco.global_step() < self.total_steps {
            let asked = Instant::now();
            let Some(batch) = feed.recv()? else { break };
            self.tally.waited(asked.elapsed());
            self.count(&batch.bad_samples, moco, control)?;
            let progress = Progress {
                global_step: moco.global_step(),
                total_steps: self.total_steps,
                steps_per_epoch: self.steps_per_epoch,
            };
            let lr = plan.schedule.lr(plan.lr, progress);
            let [im_q, im_k] = [0, 1].map(|view| batch.views[view].clone());
            let batch = Batch { im_q, im_k, sample_indices: batch.sample_indices };
            let step = match &mut self.captured {
                Some(captured) => captured.step(moco, &batch, lr)?,
                None => moco.step(&batch, lr)?.statistics,
            };

            let global_step = moco.global_step();
            self.tally.stepped(global_step, plan.batch_size);
            (control.observe)(&Event::Stepped { global_step });
            if global_step == first_step {
                tell_varying_bits(moco, control)?;
            }
            let is_last = global_step == self.total_steps;
            let stops = control.stop.load(Ordering::Relaxed) && !is_last;
            let logs = is_due(global_step, plan.cadence.log_every) || is_last;
            let saves = is_due(global_step, plan.cadence.checkpoint_every) || is_last || stops;
            // Reading makes the host wait for the GPU, which computes on meanwhile in all other steps.
            let reads = step.is_ready() || logs || saves;
            self.pending.push(step);
            let report = if reads { self.read()? } else { None };
            let alarms = report.iter().flat_map(|report| &report.alarms);
            let is_collapsed = alarms.into_iter().any(|alarm| *alarm == Alarm::Collapse);
            let (epoch, bad_samples) = (progress.epoch(), self.n_bad_samples);
            if let (true, Some(report)) = (logs, report)
                && let Some(line) = self.tally.line(Place { epoch, lr, bad_samples }, report)
            {
                (control.observe)(&Event::Log(&line));
                self.metrics.send(Line::Step(line))?;
            }
            if global_step.is_multiple_of(self.steps_per_epoch) {
                self.end_epoch(&feed, global_step, progress.epoch(), control)?;
            }
            if is_due(global_step, plan.cadence.knn_every) && !is_last {
                self.monitor(moco, control)?;
            }
            if saves || (is_collapsed && plan.health.stop_on_collapse) {
                self.save(moco, control)?;
            }
            if is_collapsed && plan.health.stop_on_collapse {
                let message = Alarm::Collapse.message();
                return Err(TrainError::Unhealthy { global_step, message });
            }
            if stops {
                return Ok(false);
            }
        }
        self.tally.pause_clock();
        Ok(true)
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
        moco: &Moco,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let OnBadSample::Skip { budget } = self.plan.on_bad_sample else { return Ok(()) };
        let (global_step, before) = (moco.global_step(), self.n_bad_samples);
        for (n_bad_samples, sample) in (before + 1..).zip(skipped) {
            if n_bad_samples > budget {
                if global_step > 0 {
                    self.save(moco, control)?;
                }
                let last = sample.clone();
                return Err(TrainError::BadSampleBudget { budget, n_bad_samples, last });
            }
            let event = Event::Skipped { global_step, n_bad_samples, budget, sample };
            (control.observe)(&event);
        }
        self.n_bad_samples = before + skipped.len() as u64;
        Ok(())
    }

    fn save(&mut self, moco: &Moco, control: &mut Control<'_>) -> Result<(), TrainError> {
        let wall_seconds = self.seconds_before + self.started.elapsed().as_secs_f64();
        let spent = (wall_seconds, self.n_bad_samples);
        // A state that a loss of NaN went into is not saved.
        self.read()?;
        (control.observe)(&Event::Saving { global_step: moco.global_step() });
        // A resume goes on behind the checkpoint's step: its line must be in the file by then.
        self.metrics.flush()?;
        Ok(self.checkpoints.send(Snapshot::of(moco, self.config, spent)?)?)
    }

    fn monitor(&mut self, moco: &mut Moco, control: &mut Control<'_>) -> Result<(), TrainError> {
        let Some(evaluator) = self.evaluator else { return Ok(()) };
        self.tally.pause_clock();
        let global_step = moco.global_step();
        let knn = evaluator.monitor(moco.encoder_q_mut().encoder_mut())?;
        self.metrics.send(Line::Monitor { step: global_step, knn })?;
        (control.observe)(&Event::Monitor { global_step, knn });
        self.tally.resume_clock();
        Ok(())
    }

    fn end_epoch(
        &mut self,
        feed: &DeviceFeed,
        global_step: u64,
        epoch: u64,
        control: &mut Control<'_>,
    ) -> Result<(), TrainError> {
        let now = feed.meters();
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
        (control.observe)(&Event::Stages { epoch, stages: &stages, bottleneck });
        Ok(())
    }
}

/// Tells of what a GPU cannot repeat to the bit; each convolution has its algorithm after a step.
fn tell_varying_bits(moco: &Moco, control: &mut Control<'_>) -> Result<(), TrainError> {
    let choices = convolution_choices(moco.device())?.unwrap_or_default();
    let convolutions = varying_convolutions(&choices);
    if !convolutions.is_empty() {
        (control.observe)(&Event::BitsVary { convolutions: &convolutions });
    }
    Ok(())
}

/// Whether something that happens every `every` steps (0 = never) happens after this one.
fn is_due(global_step: u64, every: u64) -> bool {
    every > 0 && global_step.is_multiple_of(every)
}
