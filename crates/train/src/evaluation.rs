//! The evaluation at the end of a run. Its parts are measured one after the other, what says most first, and
//! the summary is written after each of them: what fails is a line in it and costs no other part.

use std::time::Instant;

use candle_core::Device;
use moco_encoders::Encoder;
use moco_feed::with_causes;
use moco_ingest::BadSamples;
use moco_ops::peak_device_memory_bytes;
use moco_telemetry::{peak_memory_bytes, time_left};

use crate::error::{DataFault, TrainError};
use crate::event::{Event, Observe, report};
use crate::measure::{Evaluator, Tables};
use crate::plan::{Length, PretrainPlan};
use crate::run_folder::{Newest, RunFolder};
use crate::summary::{Extractor, Failed, ImageCounts, LeftOut, Measure, Summary};

/// The summary of a run that has nothing left to do; `None` where steps or parts of the evaluation are missing.
///
/// # Errors
/// If the summary cannot be read.
pub fn finished(
    plan: &PretrainPlan,
    folder: &RunFolder,
    newest: &Newest,
) -> Result<Option<Summary>, TrainError> {
    let Some(summary) = folder.summary(newest.checkpoint.global_step)? else { return Ok(None) };
    let is_done = match plan.length {
        Length::Steps(steps) => steps == summary.steps,
        // A summary is written after the last epoch only.
        Length::Epochs(_) => true,
    };
    let summary = summary.under(&plan.evaluation);
    Ok((is_done && summary.is_complete(&plan.evaluation)).then_some(summary))
}

/// A run whose training is finished.
pub(crate) struct Evaluation<'a> {
    pub(crate) plan: &'a PretrainPlan,
    pub(crate) folder: &'a RunFolder,
    /// `None` if there are no labels.
    pub(crate) evaluator: Option<&'a Evaluator>,
    /// Those listed so far.
    pub(crate) bad_samples: BadSamples,
    pub(crate) device: &'a Device,
    pub(crate) started: Instant,
    pub(crate) seconds_before: f64,
    pub(crate) summary: Summary,
}

/// The encoders that are measured.
pub(crate) struct Encoders<'a> {
    pub(crate) trained: &'a mut dyn Encoder,
    /// Not calibrated.
    pub(crate) random: &'a mut dyn Encoder,
}

impl<'a> Evaluation<'a> {
    /// Measures what is missing in the summary. Returns it with the first failure.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub(crate) fn run(
        mut self,
        mut encoders: Encoders<'_>,
        observe: Observe<'_>,
    ) -> Result<(Summary, Option<TrainError>), TrainError> {
        let mut first = None;
        // Training is finished, whatever becomes of the evaluation.
        self.write()?;
        for extractor in [Extractor::Trained, Extractor::Random, Extractor::Pixels] {
            let missing = self.summary.missing(extractor, &self.plan.evaluation);
            if missing.is_empty() {
                continue;
            }
            self.summary.failed.retain(|failed| failed.extractor != extractor);
            let evaluator = match self.evaluator_for(extractor) {
                Ok(evaluator) => evaluator,
                Err(reason) => {
                    report(observe, &Event::LeftOut { extractor, reason: &reason });
                    self.summary.left_out.push(LeftOut { extractor, reason });
                    self.write()?;
                    continue;
                }
            };
            let what = extractor.name();
            report(observe, &Event::Evaluating { what });
            let mut pace = Pace::of(format!("images of the {what}"), observe);
            match tables(evaluator, extractor, &mut encoders, &mut pace) {
                Ok(tables) => {
                    self.list(&tables)?;
                    self.summary.images.put(extractor, counts(&tables));
                    let error = self.measure(evaluator, extractor, &missing, &tables, observe)?;
                    first = first.or(error);
                }
                Err(error) => {
                    let error = self.with_advice(error);
                    self.fail(extractor, None, &error);
                    first = first.or(Some(error));
                    self.write()?;
                }
            }
        }
        Ok((self.summary, first))
    }

    /// Measures the features of one extractor, and returns the first failure.
    fn measure(
        &mut self,
        evaluator: &Evaluator,
        extractor: Extractor,
        measures: &[Measure],
        tables: &Tables,
        observe: Observe<'_>,
    ) -> Result<Option<TrainError>, TrainError> {
        let mut first = None;
        for measure in measures {
            let what = format!("{} of the {}", measure.name(), extractor.name());
            match measured(evaluator, *measure, tables, &mut Pace::of(what, observe)) {
                Ok(accuracy) => {
                    let trio = match measure {
                        Measure::Knn => &mut self.summary.knn,
                        Measure::Linear => &mut self.summary.linear,
                    };
                    trio.put(extractor, accuracy);
                }
                Err(error) => {
                    self.fail(extractor, Some(*measure), &error);
                    first = first.or(Some(error));
                }
            }
            self.write()?;
        }
        Ok(first)
    }

    /// Says how to continue after a fault of the data.
    fn with_advice(&self, error: TrainError) -> TrainError {
        let TrainError::Feed(source) = error else { return error };
        let (global_step, resume) = (self.summary.steps, self.folder.resume_arguments());
        TrainError::Data { fault: DataFault::of(&source), global_step, resume, source }
    }

    /// The evaluator, or why this extractor is left out.
    fn evaluator_for(&self, extractor: Extractor) -> Result<&'a Evaluator, String> {
        let Some(evaluator) = self.evaluator else {
            return Err("the data has no labeled test images".to_owned());
        };
        let without = match extractor {
            Extractor::Pixels => evaluator.without_labels().or_else(|| evaluator.without_pixels()),
            Extractor::Random | Extractor::Trained => evaluator.without_labels(),
        };
        without.map_or(Ok(evaluator), Err)
    }

    /// Lists the images that were left out.
    fn list(&mut self, tables: &Tables) -> Result<(), TrainError> {
        for sample in tables.train.bad_samples.iter().chain(&tables.test.bad_samples) {
            self.bad_samples.list(sample);
        }
        Ok(self.bad_samples.save()?)
    }

    fn fail(&mut self, extractor: Extractor, measure: Option<Measure>, error: &TrainError) {
        let reason = with_causes(error);
        self.summary.failed.push(Failed { extractor, measure, reason });
    }

    /// Writes the summary as it is now.
    fn write(&mut self) -> Result<(), TrainError> {
        let Self { summary, device, .. } = self;
        summary.wall_seconds = self.seconds_before + self.started.elapsed().as_secs_f64();
        summary.peak_memory_bytes = summary.peak_memory_bytes.max(peak_memory_bytes().ok());
        let on_device = peak_device_memory_bytes(device)?;
        summary.peak_device_memory_bytes = summary.peak_device_memory_bytes.max(on_device);
        self.folder.write_summary(&self.summary)
    }
}

fn tables(
    evaluator: &Evaluator,
    extractor: Extractor,
    encoders: &mut Encoders<'_>,
    pace: &mut Pace<'_>,
) -> Result<Tables, TrainError> {
    let mut progress = |done, total| pace.report(done, total);
    match extractor {
        Extractor::Trained => evaluator.encode(encoders.trained, &mut progress),
        Extractor::Random => {
            evaluator.calibrate(encoders.random)?;
            evaluator.encode(encoders.random, &mut progress)
        }
        Extractor::Pixels => evaluator.pixels(&mut progress),
    }
}

fn measured(
    evaluator: &Evaluator,
    measure: Measure,
    tables: &Tables,
    pace: &mut Pace<'_>,
) -> Result<f64, TrainError> {
    let mut progress = |done, total| pace.report(done, total);
    match measure {
        Measure::Knn => evaluator.knn(tables, &mut progress),
        Measure::Linear => evaluator.linear(tables, &mut progress),
    }
}

fn counts(Tables { train, test }: &Tables) -> ImageCounts {
    ImageCounts {
        train: train.features.len() as u64,
        test: test.features.len() as u64,
        skipped: (train.bad_samples.len() + test.bad_samples.len()) as u64,
    }
}

/// Reports how far a part is.
struct Pace<'a> {
    what: String,
    began: Instant,
    observe: Observe<'a>,
}

impl<'a> Pace<'a> {
    fn of(what: String, observe: Observe<'a>) -> Self {
        Self { what, began: Instant::now(), observe }
    }

    fn report(&mut self, done: u64, total: u64) {
        let time_left = time_left(self.began.elapsed(), done, total);
        let what = self.what.as_str();
        report(self.observe, &Event::Measuring { what, done, total, time_left });
    }
}
