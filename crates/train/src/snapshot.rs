//! The state of a run as a checkpoint, and back.

use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use moco::{Mechanism, MocoState};
use moco_checkpoint::{Checkpoint, CheckpointDir, Rejected};
use moco_pipeline::{PipelineError, Sink};

use crate::error::{During, TrainError};
use crate::identity::RunId;
use crate::run_state::{self, RunState};

/// A copy of a run's state that the writer owns: the model's own tensors change in place.
pub(crate) struct Snapshot {
    global_step: u64,
    tensors: MocoState,
    run_state: RunState,
}

impl Snapshot {
    pub(crate) fn of(model: &dyn Mechanism, run_state: RunState) -> Result<Self, TrainError> {
        let mut tensors = MocoState::new();
        for (name, tensor) in model.state()? {
            let copy = tensor.contiguous().and_then(|t| {
                if t.device().is_cpu() { t.copy() } else { t.to_device(&Device::Cpu) }
            });
            let copy = copy.during("copying the state")?;
            tensors.insert(name, copy);
        }
        Ok(Self { global_step: model.global_step(), tensors, run_state })
    }
}

/// The checkpoint writer: a thread that takes one snapshot at a time.
pub(crate) fn writer(checkpoints: CheckpointDir) -> Result<Sink<Snapshot>, PipelineError> {
    Sink::spawn("checkpoint", 0, move |snapshot: Snapshot| {
        let Snapshot { global_step, tensors, run_state } = snapshot;
        checkpoints.save(global_step, &tensors, &run_state.to_metadata())?;
        Ok(())
    })
}

/// A checkpoint as the stages that use a trained encoder read it.
#[derive(Debug)]
pub struct SavedRun {
    /// Both encoders, the queue and the optimizer's buffers by name.
    pub tensors: MocoState,
    /// The resolved config of the run.
    pub config: String,
    /// Steps done.
    pub global_step: u64,
    /// The id of the run; `None` for one from before there were any.
    pub run_id: Option<RunId>,
    /// Newer checkpoints of the folder that cannot be used, newest first; worth a warning.
    pub rejected: Vec<Rejected>,
}

impl SavedRun {
    /// Reads a checkpoint file. A folder stands for its newest valid checkpoint (a run, or its
    /// `checkpoints`).
    ///
    /// # Errors
    /// If there is no valid checkpoint, or it was not written by pretraining.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let (checkpoint, path, rejected): (Checkpoint, PathBuf, _) = if path.is_dir() {
            let inner = path.join("checkpoints");
            let folder = if inner.is_dir() { inner } else { path.to_owned() };
            let newest = moco_checkpoint::newest_valid(&folder)?;
            (newest.checkpoint, newest.path, newest.rejected)
        } else {
            (CheckpointDir::load(path)?, path.to_owned(), Vec::new())
        };
        let tensors = tensors(&checkpoint, &path)?;
        let state = RunState::from_metadata(&checkpoint.metadata, &path)?;
        let RunState { config, origin, .. } = state;
        let global_step = checkpoint.global_step;
        Ok(Self { tensors, config, global_step, run_id: origin.run_id, rejected })
    }
}

/// The tensors of a verified checkpoint. `path` is for the error.
///
/// # Errors
/// If a later release wrote it, or a tensor has a type that candle does not know.
pub(crate) fn tensors(checkpoint: &Checkpoint, path: &Path) -> Result<MocoState, TrainError> {
    let content = |what: String| TrainError::Content { path: path.to_owned(), what };
    run_state::expect_known_format(&checkpoint.metadata, path)?;
    let views = checkpoint.tensors().map_err(|e| content(e.to_string()))?;
    let tensor = |named: (String, safetensors::tensor::TensorView<'_>)| {
        let (name, view) = named;
        let tensor: Tensor = view.load(&Device::Cpu).during("reading a checkpoint")?;
        Ok((name, tensor))
    };
    views.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_checkpoint_of_a_later_release_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::open(folder.path(), 9).unwrap();
        let path = |step: u64| folder.path().join(format!("step-{step:010}.safetensors"));
        let config = ("config".to_owned(), "seed = 1".to_owned());
        for (step, format) in [(1, None), (2, Some("1")), (3, Some("3"))] {
            let format = format.map(|format| ("format".to_owned(), format.to_owned()));
            let metadata = [config.clone()].into_iter().chain(format).collect();
            checkpoints.save(step, &MocoState::new(), &metadata).unwrap();
            let saved = SavedRun::load(&path(step)).unwrap();
            assert_eq!((saved.tensors.len(), saved.config.as_str()), (0, "seed = 1"));
            assert_eq!(saved.global_step, step);
        }
        for (step, format) in [(4, "4"), (5, "new")] {
            let metadata = BTreeMap::from([("format".to_owned(), format.to_owned())]);
            checkpoints.save(step, &MocoState::new(), &metadata).unwrap();
            assert_eq!(
                SavedRun::load(&path(step)).unwrap_err().to_string(),
                format!(
                    "{} has format {format}, and this program reads up to 3; \
                     use the release that wrote it",
                    path(step).display()
                )
            );
        }
    }
}
