//! How a run starts: new, from its own checkpoint, or with the encoders and the queue of another run.

use moco::{Mechanism, MocoState};
use moco_checkpoint::Newest;
use moco_ops::prefer_convolution_choices;
use moco_optim::Progress;
use moco_telemetry::truncate_after;

use crate::difference::{Acceptance, Difference};
use crate::error::TrainError;
use crate::event::{DataComparison, Event, Observe, report};
use crate::identity::{DataOrigin, Origin};
use crate::plan::{Length, PretrainPlan};
use crate::run_folder::RunFolder;
use crate::run_state::RunState;
use crate::snapshot::{self, SavedRun};
use crate::summary::{Extension, Parent};

/// How a run starts.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// At step 0, with random weights.
    New,
    /// At step 0, with both encoders and the queue of another run, and momentum buffers of zero.
    Fork {
        /// The checkpoint of the other run.
        saved: &'a SavedRun,
        /// The name of the other run.
        run: &'a str,
    },
    /// Where it stopped.
    Resume(Continued<'a>),
}

/// A run that continues.
#[derive(Debug, Clone, Copy)]
pub struct Continued<'a> {
    /// Its checkpoint.
    pub newest: &'a Newest,
    /// What follows if the images are not those of the checkpoint.
    pub changed_data: ChangedData,
    /// The length until now, where the plan's is longer; the folder's config is that of the plan.
    pub extended_from: Option<Length>,
}

/// The policy for a resume on images that are not those of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedData {
    /// An error that names them.
    Refuse,
    /// An event.
    Accept,
}

/// What a run brings along from earlier sessions.
pub(crate) struct Begun {
    pub(crate) wall_seconds: f64,
    pub(crate) n_bad_samples: u64,
    pub(crate) origin: Origin,
}

/// A run whose model was built and has yet to get its state.
pub(crate) struct Starting<'a> {
    pub(crate) plan: &'a PretrainPlan,
    pub(crate) folder: &'a RunFolder,
    /// Of the images that are there now.
    pub(crate) data: DataOrigin,
    pub(crate) total_steps: u64,
    pub(crate) steps_per_epoch: u64,
}

impl Starting<'_> {
    /// Puts the run's state into the model.
    pub(crate) fn begin(
        self,
        start: Start<'_>,
        model: &mut dyn Mechanism,
        observe: Observe<'_>,
    ) -> Result<Begun, TrainError> {
        let run_id = Some(self.folder.id().clone());
        let origin = Origin { run_id, data: self.data.clone(), ..Origin::default() };
        let new = |origin| Begun { wall_seconds: 0.0, n_bad_samples: 0, origin };
        match start {
            Start::New => Ok(new(origin)),
            Start::Fork { saved, run } => {
                let run_id = saved.run_id.as_ref().map(ToString::to_string);
                let parent = Parent { run: run.to_owned(), run_id, step: saved.global_step };
                fork(saved, &parent, model)?;
                report(observe, &Event::Forked(&parent));
                Ok(new(Origin { parent: Some(parent), ..origin }))
            }
            Start::Resume(continued) => self.resume(continued, origin, model, observe),
        }
    }

    fn resume(
        &self,
        continued: Continued<'_>,
        origin: Origin,
        model: &mut dyn Mechanism,
        observe: Observe<'_>,
    ) -> Result<Begun, TrainError> {
        let Continued { newest, changed_data, extended_from } = continued;
        let global_step = newest.checkpoint.global_step;
        for rejected in &newest.rejected {
            let (path, reason) = (rejected.path.clone(), rejected.reason.to_string());
            report(observe, &Event::Rejected { path, reason });
        }
        let mut state = RunState::of(newest)?;
        self.compare_data(&state.origin.data, newest, changed_data, observe)?;
        let Origin { parent, extensions, .. } = state.origin;
        state.origin = Origin { parent, extensions, ..origin };
        let tensors = snapshot::tensors(&newest.checkpoint, &newest.path)?;
        model.load_state(&tensors, global_step)?;
        if let Some(choices) = &state.convolutions
            && let Some(outdated) = prefer_convolution_choices(model.device(), choices)?
        {
            report(observe, &Event::ChosenAnew { outdated: &outdated });
        }
        let metrics = self.folder.file("metrics.jsonl");
        let truncated = truncate_after(&metrics, global_step)?;
        if !truncated.damaged.is_empty() {
            report(observe, &Event::MetricsDamaged { path: metrics, lines: &truncated.damaged });
        }
        if let Some(length) = extended_from {
            self.extend(length, global_step, &tensors, &mut state, observe)?;
        }
        let RunState { wall_seconds, n_bad_samples, origin, .. } = state;
        Ok(Begun { wall_seconds, n_bad_samples, origin })
    }

    fn compare_data(
        &self,
        then: &DataOrigin,
        newest: &Newest,
        changed_data: ChangedData,
        observe: Observe<'_>,
    ) -> Result<(), TrainError> {
        let DataOrigin { train, test } = &self.data;
        let Some(train_now) = train else {
            report(observe, &Event::DataCompared(&DataComparison::NotKnown));
            return Ok(());
        };
        if then.train.is_none() {
            report(observe, &Event::DataCompared(&DataComparison::NotInCheckpoint));
            return Ok(());
        }
        let splits = [("training images", train, &then.train), ("test images", test, &then.test)];
        let none = || "none".to_owned();
        let changed = splits.into_iter().filter(|(_, now, then)| now != then);
        let differences: Vec<Difference> = changed
            .map(|(key, now, then)| Difference {
                key: key.to_owned(),
                of_run: now.clone().unwrap_or_else(none),
                of_checkpoint: then.clone().unwrap_or_else(none),
                acceptance: Acceptance::ChangedData,
            })
            .collect();
        if differences.is_empty() {
            let digest = train_now.clone();
            report(observe, &Event::DataCompared(&DataComparison::Same { digest }));
        } else if changed_data == ChangedData::Refuse {
            let checkpoint = newest.path.file_name().unwrap_or_default();
            let checkpoint = checkpoint.to_string_lossy().into_owned();
            let run = self.folder.path().to_owned();
            return Err(TrainError::Disagree { run, checkpoint, differences });
        }
        for difference in differences {
            report(observe, &Event::DataCompared(&DataComparison::Accepted { difference }));
        }
        Ok(())
    }

    /// Makes the run longer, durably and before its next step: the checkpoint is saved again with the longer
    /// config, which is written after it. A crash in between leaves no `config.toml`, and the next resume
    /// restores it from the checkpoint.
    fn extend(
        &self,
        length: Length,
        global_step: u64,
        tensors: &MocoState,
        state: &mut RunState,
        observe: Observe<'_>,
    ) -> Result<(), TrainError> {
        let (folder, steps_per_epoch) = (self.folder, self.steps_per_epoch);
        let (from_steps, to_steps) = (length.steps(steps_per_epoch), self.total_steps);
        if to_steps <= from_steps {
            let run = folder.path().to_owned();
            return Err(TrainError::NotLonger { run, from_steps, to_steps });
        }
        let extension = Extension { at_step: global_step, from_steps, to_steps };
        state.origin.extensions.push(extension);
        state.config = folder.config().to_owned();
        let checkpoints = folder.checkpoints(self.plan.cadence.keep_checkpoints)?;
        folder.retire(from_steps)?;
        checkpoints.save(global_step, tensors, &state.to_metadata())?;
        folder.write_config()?;
        let lr = |global_step, total_steps| {
            let progress = Progress { global_step, total_steps, steps_per_epoch };
            self.plan.schedule.lr(self.plan.lr, progress)
        };
        let lr_before = lr(global_step.saturating_sub(1), from_steps);
        let lr_after = lr(global_step, to_steps);
        report(observe, &Event::Extended { extension, lr_before, lr_after });
        Ok(())
    }
}

/// Puts the encoders and the queue of a checkpoint into a model at its start.
fn fork(saved: &SavedRun, parent: &Parent, model: &mut dyn Mechanism) -> Result<(), TrainError> {
    let unfit = |reason: String| TrainError::ForkUnfit {
        run: parent.run.clone(),
        step: parent.step,
        reason,
    };
    let mut state = model.state()?;
    for (name, tensor) in state.iter_mut().filter(|(name, _)| is_inherited(name)) {
        let of_parent = saved.tensors.get(name);
        *tensor = of_parent.ok_or_else(|| unfit(format!("it has no `{name}`")))?.clone();
    }
    // One that the model lacks is of a larger network.
    let lacking = |name: &&String| is_inherited(name) && !state.contains_key(*name);
    if let Some(name) = saved.tensors.keys().find(lacking) {
        return Err(unfit(format!("`{name}` has no place")));
    }
    model.load_state(&state, 0).map_err(|error| unfit(error.to_string()))
}

/// Whether a fork takes a tensor over; all others are the optimizer's.
fn is_inherited(name: &str) -> bool {
    let prefixes = ["encoder_q.", "encoder_k."];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || ["queue", "queue_ptr"].contains(&name)
}
