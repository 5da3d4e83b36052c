//! Progress events of a run; the binaries print them.

use std::path::PathBuf;
use std::time::Duration;

use moco::{HealthReport, StepStatistics};
use moco_ingest::BadSample;
use moco_ops::OutdatedChoices;
use moco_pipeline::StageReport;
use serde::Serialize;

use crate::difference::Difference;
use crate::summary::{Extension, Parent};

/// Something happened.
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
    /// A step was done.
    Stepped {
        /// Steps done.
        global_step: u64,
    },
    /// A log line is due.
    Log(&'a LogLine),
    /// The kNN monitor ran.
    Monitor {
        /// Steps done.
        global_step: u64,
        /// Accuracy in percent.
        knn: f64,
    },
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
        /// Pixels, random encoder or trained encoder.
        what: &'static str,
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
}
