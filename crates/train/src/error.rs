//! The errors that end a run, and their kinds.

use std::error::Error;
use std::path::PathBuf;

use moco::{Finding, MocoError};
use moco_augment::AugmentError;
use moco_checkpoint::CheckpointError;
use moco_encoders::EncoderError;
use moco_evaluate::EvaluateError;
use moco_feed::FeedError;
use moco_ingest::{BadSample, IngestError};
use moco_pipeline::PipelineError;

use crate::difference::{Difference, listed};

/// A run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A checkpoint that a later release wrote.
    #[error(
        "{} has format {found}, and this program reads up to {supported}; use the release that wrote it",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The newest format that can be read.
        supported: u32,
    },
    /// A stage failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Images do not become batches.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The step failed.
    #[error(transparent)]
    Moco(#[from] MocoError),
    /// An image became NaN or infinite on its way to the encoder.
    #[error("image {image}: {source}")]
    Image {
        /// The location of the image.
        image: String,
        /// View, sample index and step.
        source: MocoError,
    },
    /// An operation failed.
    #[error(transparent)]
    Op(#[from] moco_ops::OpError),
    /// An encoder failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The data cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// CIFAR-10 or MNIST files cannot be read.
    #[cfg(feature = "cifar")]
    #[error(transparent)]
    Datasets(#[from] moco_datasets::DatasetsError),
    /// The program was built without the feature `cifar`.
    #[error(
        "this build does not read data.source = \"{data_source}\"; \
         start one that does by `cargo xtask --features cifar STAGE`, for instance \
         `cargo xtask --features cifar pretrain configs/pretrain/cifar10-notebook.toml`"
    )]
    NoReader {
        /// `cifar10` or `mnist`.
        data_source: &'static str,
    },
    /// The device is a CPU, and a setting of the plan asks for more.
    #[error("{setting} needs --device cuda:N")]
    NeedsGpu {
        /// The setting, as it is in a config.
        setting: &'static str,
    },
    /// Features of labeled images were asked for, and there are none.
    #[error("the config's data has no labeled test split")]
    NoLabels,
    /// The embedded data set cannot be written.
    #[error(transparent)]
    Textures(#[from] moco_textures::TexturesError),
    /// The data failed in the middle of a run; the state before that is saved.
    #[error("{}", data_text(*fault, *global_step, resume))]
    Data {
        /// Whether one image is at fault.
        fault: DataFault,
        /// Steps done.
        global_step: u64,
        /// The arguments that continue the run.
        resume: String,
        /// The fault.
        source: FeedError,
    },
    /// More images could not be used than the plan allows.
    #[error(
        "{n_bad_samples} bad samples are over data.bad_sample_budget = {budget}; \
         the last one was {last}; repair the data, or raise the budget and resume"
    )]
    BadSampleBudget {
        /// How many there may be.
        budget: u64,
        /// How many could not be used.
        n_bad_samples: u64,
        /// The last of them.
        last: BadSample,
    },
    /// A recipe is not possible.
    #[error(transparent)]
    Recipe(#[from] AugmentError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Metrics cannot be written.
    #[error(transparent)]
    Telemetry(#[from] moco_telemetry::TelemetryError),
    /// Features cannot be measured.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A file of the run folder cannot be written or read.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The operation that failed.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A new run would overwrite an old one.
    #[error(
        "{} exists already; choose another --name, or continue it with --resume {name}", path.display()
    )]
    RunExists {
        /// The folder.
        path: PathBuf,
        /// The run's name.
        name: String,
    },
    /// A resume of a run that is not there.
    #[error("no run at {}; runs there are: {}", path.display(), if known.is_empty() { "none" } else { known })]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// Names of the runs beside it.
        known: String,
    },
    /// A resume of a run that has no checkpoint.
    #[error(
        "no usable checkpoint in {}: the run ended before its first was saved; \
         start it again with --name {name}",
        folder.display()
    )]
    NothingSaved {
        /// The folder of its checkpoints.
        folder: PathBuf,
        /// The run's name.
        name: String,
    },
    /// A checkpoint is not what the run has become, or of another run.
    #[error("{} does not agree with its checkpoint {checkpoint}{}", run.display(), listed(differences))]
    Disagree {
        /// The run's folder.
        run: PathBuf,
        /// File name of the checkpoint.
        checkpoint: String,
        /// The values in question.
        differences: Vec<Difference>,
    },
    /// An extension that does not make a run longer.
    #[error("{} is {from_steps} steps long; --extend must be more, got {to_steps}", run.display())]
    NotLonger {
        /// The run's folder.
        run: PathBuf,
        /// Its length.
        from_steps: u64,
        /// The length that was asked for.
        to_steps: u64,
    },
    /// A fork whose config has another network or queue than its parent.
    #[error(
        "step {step} of {run} does not fit this config: {reason}; a fork keeps the network and the queue \
         of its parent, so leave [encoder], moco.mechanism, moco.dim, moco.queue_size and \
         moco.queue_precision as they were"
    )]
    ForkUnfit {
        /// The parent's name.
        run: String,
        /// The step of its checkpoint.
        step: u64,
        /// The tensor in question.
        reason: String,
    },
    /// Another process writes this run.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A checkpoint or step file lacks something.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The reason.
        what: String,
    },
    /// candle failed.
    #[error("{what}: {source}")]
    Candle {
        /// The operation that failed.
        what: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
    /// The features of all images are equal, and the plan says to stop then.
    #[error("the features of all images are equal at step {global_step}: {finding}")]
    Unhealthy {
        /// The step.
        global_step: u64,
        /// The cause, or the collapse itself where none was found.
        finding: Finding,
    },
}

/// What failed on the way of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFault {
    /// One image, which the plan says not to skip.
    Image,
    /// More than that: a shard, a store, a stage.
    Other,
}

impl DataFault {
    /// What an error of a feed says.
    #[must_use]
    pub fn of(error: &FeedError) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            let of_feed = error.downcast_ref().and_then(|error: &FeedError| error.bad_sample(0));
            let of_ingest = || error.downcast_ref().and_then(|e: &IngestError| e.bad_sample(0));
            if of_feed.or_else(of_ingest).is_some() {
                return Self::Image;
            }
            cause = error.source();
        }
        Self::Other
    }
}

/// What to do after a fault of the data.
fn data_text(fault: DataFault, global_step: u64, resume: &str) -> String {
    const SKIP: &str = "--set data.on_bad_sample=skip --set data.bad_sample_budget=100";
    const ALL: &str = "`cargo xtask doctor FOLDER` names all such images of a folder, and `cargo xtask shard \
                       verify --decode` those of shards";
    match (fault, global_step) {
        (DataFault::Image, 0) => format!(
            "an image cannot be used, and no step was done; repair or remove it and start again, \
             or leave out up to 100 such images by {SKIP}; {ALL}"
        ),
        (DataFault::Image, step) => format!(
            "an image cannot be used; step {step} is saved; repair the image and continue by {resume}, \
             or leave out up to 100 such images by {resume} {SKIP}; {ALL}"
        ),
        (DataFault::Other, 0) => "the data failed, and no step was done".to_owned(),
        (DataFault::Other, step) => {
            format!("the data failed; step {step} is saved, and {resume} continues there")
        }
    }
}

/// Kinds of trouble that a caller treats differently; the exit codes of the binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Something else went wrong while running.
    Failed,
    /// The data or the machine is not fit: a missing shard, a broken image, a full disk.
    DataOrMachine,
    /// A health rule stopped the run.
    Health,
    /// The arguments do not fit: a run that exists, or does not.
    Usage,
}

impl TrainError {
    /// Which kind of trouble this is, looking through the stage that reports it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::RunExists { .. }
            | Self::NoRun { .. }
            | Self::Disagree { .. }
            | Self::NotLonger { .. }
            | Self::ForkUnfit { .. }
            | Self::Recipe(_) => ErrorKind::Usage,
            Self::Unhealthy { .. }
            | Self::Image { .. }
            | Self::Moco(
                MocoError::NotFinite { .. }
                | MocoError::NotFiniteOnDevice { .. }
                | MocoError::ImageNotFinite { .. },
            ) => ErrorKind::Health,
            Self::NoReader { .. }
            | Self::NeedsGpu { .. }
            | Self::Moco(MocoError::QueueTooSmall { .. }) => ErrorKind::Usage,
            #[cfg(feature = "cifar")]
            Self::Datasets(_) => ErrorKind::DataOrMachine,
            Self::Ingest(error) => ErrorKind::of_ingest(error),
            Self::Textures(_)
            | Self::NoLabels
            | Self::BadSampleBudget { .. }
            | Self::Checkpoint(_)
            | Self::Telemetry(_)
            | Self::File { .. }
            | Self::TooNew { .. }
            | Self::NothingSaved { .. }
            | Self::Locked { .. } => ErrorKind::DataOrMachine,
            Self::Feed(error) | Self::Data { source: error, .. } => ErrorKind::of_feed(error),
            Self::Pipeline(error) => ErrorKind::of_stage(error),
            _ => ErrorKind::Failed,
        }
    }
}

impl ErrorKind {
    /// The kind of an error of this crate or of the data path; `None` for any other error.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let of_run = error.downcast_ref().map(TrainError::kind);
        of_run.or_else(|| error.downcast_ref().map(Self::of_feed))
    }

    fn of_feed(error: &FeedError) -> Self {
        match error {
            FeedError::Window { .. } => Self::Usage,
            FeedError::Ingest(error) => Self::of_ingest(error),
            FeedError::Image { .. } | FeedError::NoSubstitute { .. } => Self::DataOrMachine,
            FeedError::Pipeline(error) => Self::of_stage(error),
            _ => Self::Failed,
        }
    }

    fn of_ingest(error: &IngestError) -> Self {
        match error {
            IngestError::BatchSize { .. } | IngestError::StoreUnfit { .. } => Self::Usage,
            _ => Self::DataOrMachine,
        }
    }

    fn of_stage(error: &PipelineError) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = cause {
            if let Some(kind) = Self::of(error) {
                return kind;
            }
            if error.is::<IngestError>()
                || error.is::<CheckpointError>()
                || error.is::<moco_telemetry::TelemetryError>()
            {
                return Self::DataOrMachine;
            }
            cause = error.source();
        }
        Self::Failed
    }
}

/// Says what candle was asked to do when it failed.
pub(crate) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, TrainError>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, what: &'static str) -> Result<T, TrainError> {
        self.map_err(|source| TrainError::Candle { what, source })
    }
}

/// Names the file that the operating system refused.
pub(crate) trait OnFile<T> {
    fn on_file(self, action: &'static str, path: &std::path::Path) -> Result<T, TrainError>;
}

impl<T> OnFile<T> for std::io::Result<T> {
    fn on_file(self, action: &'static str, path: &std::path::Path) -> Result<T, TrainError> {
        self.map_err(|source| TrainError::File { action, path: path.to_owned(), source })
    }
}
