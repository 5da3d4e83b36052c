//! Progress events of a run: each is a line of the log; the binaries print some of them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use moco::{Finding, HealthReport, Inspection, Phase, StepStatistics};
use moco_ingest::BadSample;
use moco_ops::OutdatedChoices;
use moco_pipeline::StageReport;
use moco_telemetry::{format_count, format_duration};
use serde::Serialize;
use tracing::Level;

use crate::difference::Difference;
use crate::measure::BankSize;
use crate::summary::{Extension, Extractor, Parent};
use crate::verdict::{write_alarm, write_phase};

/// Called on every event.
pub(crate) type Observe<'a> = &'a mut (dyn FnMut(&Event<'_>) + Send);

/// Logs an event and passes it on.
pub(crate) fn report(observe: Observe<'_>, event: &Event<'_>) {
    event.log();
    observe(event);
}

/// Something happened. Its text is one line, that of an alarm two, without the level.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins or resumes.
    Started {
        /// Steps done before.
        global_step: u64,
        /// Steps of the whole run.
        total_steps: u64,
        /// Steps of an epoch.
        steps_per_epoch: u64,
        /// Training images.
        n_images: u64,
        /// Trainable parameters of the query encoder.
        n_parameters: usize,
    },
    /// Something lies beside the images and is none of them.
    NoImages {
        /// Training or test images.
        of: &'static str,
        /// What, with counts.
        what: &'a str,
    },
    /// A step was done.
    Stepped {
        /// Steps done.
        global_step: u64,
        /// Images a second over the last minute of training.
        images_per_second: f64,
        /// Time to the last step; `None` in the first steps.
        time_left: Option<Duration>,
    },
    /// A log line is due.
    Log {
        /// The line.
        line: &'a LogLine,
        /// Steps of the whole run.
        total_steps: u64,
    },
    /// The run is in a phase for the first time in this process.
    Phase {
        /// Mean loss since the log line before.
        loss: f64,
        /// The verdict.
        health: &'a HealthReport,
    },
    /// An alarm rang for the first time in this process.
    Alarm {
        /// Steps done and the phase; `None` where the settings rang it before the first step.
        global_step: Option<(u64, Phase)>,
        /// The alarm.
        finding: &'a Finding,
    },
    /// The kNN monitor ran.
    Monitor {
        /// Steps done.
        global_step: u64,
        /// Accuracy in percent.
        knn: f64,
        /// Test images that it is the accuracy of.
        n_test: u64,
        /// Images of the bank and the test images that could not be used.
        n_skipped: u64,
    },
    /// The kNN monitor ran for the first time: what its bank is a sample of.
    Bank(BankSize),
    /// A checkpoint is durable or on its way to the disk.
    Saving {
        /// Steps done.
        global_step: u64,
    },
    /// An epoch ended: what each data stage did in it.
    Stages {
        /// The epoch.
        epoch: u64,
        /// One line a stage, in the order of the data.
        stages: &'a [StageReport],
        /// The stage that the others waited for.
        bottleneck: Option<&'a str>,
    },
    /// A damaged checkpoint was passed over on resume.
    Rejected {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The images of a resumed run were compared with those of its checkpoint.
    DataCompared(&'a DataComparison),
    /// Lines of the metrics could not be read on resume, and were left out.
    MetricsDamaged {
        /// The file.
        path: PathBuf,
        /// Their numbers, from 1.
        lines: &'a [usize],
    },
    /// The run was made longer, and with it the schedule.
    Extended {
        /// The lengths.
        extension: Extension,
        /// Learning rate of the last step under the old length.
        lr_before: f64,
        /// Learning rate of the next step under the new one.
        lr_after: f64,
    },
    /// The run begins with the encoders and the queue of another one.
    Forked(&'a Parent),
    /// A training image could not be used, and another took its place.
    Skipped {
        /// Steps done before the batch that it is missing from.
        global_step: u64,
        /// How many there were so far, this one included.
        n_bad_samples: u64,
        /// The image.
        sample: &'a BadSample,
    },
    /// A GPU computes convolutions whose bits differ from one time to the next, so that a run cannot be
    /// reproduced bit for bit.
    BitsVary {
        /// The convolutions, and the numbers of their algorithms.
        convolutions: &'a [&'a str],
    },
    /// The algorithms of a GPU's convolutions are measured again, since those of the checkpoint were chosen by
    /// another library or for another device; their bits may differ.
    ChosenAnew {
        /// The libraries that chose then and that choose here.
        outdated: &'a OutdatedChoices,
    },
    /// The final evaluation starts this part.
    Evaluating {
        /// Trained encoder, random encoder or raw pixels.
        what: &'static str,
    },
    /// The final evaluation is so far.
    Measuring {
        /// The part of it.
        what: &'a str,
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
        /// Time for the rest of this part.
        time_left: Option<Duration>,
    },
    /// The final evaluation leaves something out.
    LeftOut {
        /// Whose features.
        extractor: Extractor,
        /// Why.
        reason: &'a str,
    },
}

/// What became of the images that a checkpoint was trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataComparison {
    /// They are the same, as far as the digest sees.
    Same {
        /// The digest of the training images.
        digest: String,
    },
    /// They are others, which was accepted.
    Accepted {
        /// The difference.
        difference: Difference,
    },
    /// The checkpoint is from before they had a digest.
    NotInCheckpoint,
    /// Their source has no digest.
    NotKnown,
}

impl Event<'_> {
    /// How much it matters: a warning, or news. What happens at each step is of the lowest level.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Alarm { .. }
            | Self::Rejected { .. }
            | Self::Skipped { .. }
            | Self::MetricsDamaged { .. }
            | Self::DataCompared(DataComparison::Accepted { .. })
            | Self::BitsVary { .. }
            | Self::ChosenAnew { .. } => Level::WARN,
            Self::Stepped { .. } | Self::Measuring { .. } => Level::TRACE,
            _ => Level::INFO,
        }
    }

    /// Sends it to the log, with the details that its text leaves out.
    pub(crate) fn log(&self) {
        match self {
            Self::Stages { epoch, stages, .. } => {
                for stage in *stages {
                    tracing::info!(
                        "epoch {epoch}: stage {:<9} {:>9} items, busy {:.1} s, waiting {:.1} s in, {:.1} s out",
                        stage.stage,
                        stage.items,
                        stage.busy_secs,
                        stage.waiting_in_secs,
                        stage.waiting_out_secs,
                    );
                }
            }
            Self::BitsVary { convolutions } => {
                convolutions.iter().for_each(|convolution| tracing::warn!("{convolution}"));
            }
            _ => {}
        }
        match self.level() {
            Level::WARN => tracing::warn!("{self}"),
            Level::TRACE => tracing::trace!("{self}"),
            _ => tracing::info!("{self}"),
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { global_step, total_steps, steps_per_epoch, n_images, n_parameters } => {
                write!(
                    f,
                    "plan   {} steps of {} an epoch on {} images, {} parameters",
                    format_count(*total_steps),
                    format_count(*steps_per_epoch),
                    format_count(*n_images),
                    format_count(*n_parameters as u64),
                )?;
                match global_step {
                    0 => Ok(()),
                    step => write!(f, "; continuing from step {}", format_count(*step)),
                }
            }
            Self::NoImages { of, what } => write!(f, "data   no {of} images: {what}"),
            Self::Stepped { global_step, .. } => write!(f, "step {global_step}: done"),
            Self::Log { line, total_steps } => {
                write!(f, "{}/{total_steps}  {line}", line.statistics.global_step)
            }
            Self::Phase { loss, health } => write_phase(f, *loss, health),
            Self::Alarm { global_step, finding } => write_alarm(f, *global_step, finding),
            Self::Monitor { global_step, knn, n_test, n_skipped } => {
                write!(f, "step {global_step}: kNN {knn:.1} %")?;
                match n_skipped {
                    0 => Ok(()),
                    n => write!(f, " of {n_test} test images; skipped {n} bad images"),
                }
            }
            Self::Bank(BankSize { n_images, of_images, n_classes, of_classes }) => {
                write!(f, "bank {n_images} of {of_images}, {n_classes} of {of_classes} classes")
            }
            Self::Measuring { what, done, total, .. } => write!(f, "{done}/{total}  {what}"),
            Self::LeftOut { extractor, reason } => {
                write!(f, "the {} is left out: {reason}", extractor.name())
            }
            Self::Saving { global_step } => write!(f, "step {global_step}: saving a checkpoint"),
            Self::Stages { epoch, bottleneck, .. } => {
                write!(f, "epoch {epoch}: the bottleneck was {}", bottleneck.unwrap_or("none"))
            }
            Self::Rejected { path, reason } => {
                write!(f, "{} was passed over: {reason}", path.display())
            }
            Self::DataCompared(comparison) => write!(f, "{comparison}"),
            Self::MetricsDamaged { path, lines } => {
                let shown: Vec<String> = lines.iter().take(5).map(usize::to_string).collect();
                let more = if lines.len() > shown.len() { " and more" } else { "" };
                write!(
                    f,
                    "{} damaged lines of {} were left out: {}{more}",
                    lines.len(),
                    path.display(),
                    shown.join(", "),
                )
            }
            Self::Extended { extension, lr_before, lr_after } => {
                let Extension { at_step, from_steps, to_steps } = extension;
                write!(
                    f,
                    "extend {from_steps} steps become {to_steps}: the schedule is computed over the new total, and the learning rate "
                )?;
                if lr_before == lr_after {
                    return write!(f, "stays {lr_after:.6}");
                }
                write!(
                    f,
                    "jumps from {lr_before:.6} at step {at_step} to {lr_after:.6} at the next"
                )
            }
            Self::Forked(Parent { run, run_id, step }) => {
                let id = run_id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
                write!(
                    f,
                    "fork   encoders and queue of step {step} of {run}{id}; momentum buffers begin at zero"
                )
            }
            Self::Skipped { global_step, n_bad_samples, sample } => {
                write!(f, "step {global_step}: skipped bad sample {n_bad_samples}: {sample}")
            }
            Self::BitsVary { convolutions } => write!(
                f,
                "this run cannot be reproduced bit for bit: the device computes {} convolutions by algorithms whose bits vary",
                convolutions.len(),
            ),
            Self::ChosenAnew { outdated: OutdatedChoices { chosen_by, here } } => write!(
                f,
                "the algorithms of convolutions are measured again, and bits may differ: the checkpoint has those of {chosen_by}, and here is {here}"
            ),
            Self::Evaluating { what } => write!(f, "evaluating the {what}"),
        }
    }
}

/// A log line, as it is in `metrics.jsonl`: means since the line before, except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogLine {
    /// The loss and how it came about.
    #[serde(flatten)]
    pub statistics: StepStatistics,
    /// Epoch of the last step, from 0.
    pub epoch: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Images a second over the last minute of training.
    pub images_per_second: f64,
    /// Share of the time spent waiting for data, in percent.
    pub data_wait_percent: f64,
    /// Training images that could not be used since the start of the run.
    pub bad_samples: u64,
    /// Time to the last step, evaluations not counted; `None` in the first steps.
    #[serde(skip)]
    pub time_left: Option<Duration>,
    /// The verdict after the last step.
    #[serde(flatten)]
    pub health: HealthReport,
    /// What a look at the last step saw.
    #[serde(flatten)]
    pub inspection: Inspection,
}

impl fmt::Display for DataComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { digest } => {
                let blind = if digest.contains("by name and size") {
                    "; content that changed while its size stayed is not seen"
                } else {
                    ""
                };
                write!(f, "data   as in the checkpoint: {digest}{blind}")
            }
            Self::Accepted { difference } => write!(f, "accepted: {difference}"),
            Self::NotInCheckpoint => f.write_str(
                "data   not compared: the checkpoint is from before runs had a digest of their data; the next one has it",
            ),
            Self::NotKnown => f.write_str("data   not compared: this source of images has no digest"),
        }
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "loss {:.3}  top-1 {:.0} %  {}  wait {:.0} %",
            self.statistics.loss,
            self.statistics.pretext_top1,
            format_pace(self.images_per_second, self.time_left),
            self.data_wait_percent,
        )
    }
}

/// Images a second and the time to the last step.
#[must_use]
pub fn format_pace(images_per_second: f64, time_left: Option<Duration>) -> String {
    let left = |left| format!("  {} left", format_duration(left));
    format!("{images_per_second:.0} img/s{}", time_left.map_or(String::new(), left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_that_are_measured_again_are_a_warning() {
        let [chosen_by, here] = ["A", "B"].map(String::from);
        let outdated = OutdatedChoices { chosen_by, here };
        let event = Event::ChosenAnew { outdated: &outdated };
        assert_eq!(event.level(), Level::WARN);
        assert_eq!(
            event.to_string(),
            "the algorithms of convolutions are measured again, and bits may differ: the checkpoint has those of A, and here is B"
        );
    }
}
