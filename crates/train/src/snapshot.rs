//! The state of a run as a checkpoint, and back.

use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use moco::{Moco, MocoState};
use moco_checkpoint::{Checkpoint, CheckpointDir};
use moco_pipeline::{PipelineError, Sink};

use crate::error::{During, TrainError};
use crate::run_state::RunState;

/// A copy of a run's state that the writer owns: the model's own tensors change in place.
pub(crate) struct Snapshot {
    global_step: u64,
    tensors: MocoState,
    run_state: RunState,
}

impl Snapshot {
    pub(crate) fn of(moco: &Moco, run_state: RunState) -> Result<Self, TrainError> {
        let mut tensors = MocoState::new();
        for (name, tensor) in moco.state()? {
            let copy = tensor.contiguous().and_then(|t| {
                if t.device().is_cpu() { t.copy() } else { t.to_device(&Device::Cpu) }
            });
            let copy = copy.during("copying the state")?;
            tensors.insert(name, copy);
        }
        Ok(Self { global_step: moco.global_step(), tensors, run_state })
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
}

impl SavedRun {
    /// Reads a checkpoint file. A folder stands for its newest valid checkpoint (a run, or its
    /// `checkpoints`).
    ///
    /// # Errors
    /// If there is no valid checkpoint, or it was not written by pretraining.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let (checkpoint, path): (Checkpoint, PathBuf) = if path.is_dir() {
            let inner = path.join("checkpoints");
            let folder = if inner.is_dir() { inner } else { path.to_owned() };
            let newest = moco_checkpoint::newest_valid(&folder)?;
            (newest.checkpoint, newest.path)
        } else {
            (CheckpointDir::load(path)?, path.to_owned())
        };
        let tensors = tensors(&checkpoint, &path)?;
        let RunState { config, .. } = RunState::from_metadata(&checkpoint.metadata, &path)?;
        Ok(Self { tensors, config, global_step: checkpoint.global_step })
    }
}

/// The tensors of a verified checkpoint. `path` is for the error.
///
/// # Errors
/// If a tensor has a type that candle does not know.
pub(crate) fn tensors(checkpoint: &Checkpoint, path: &Path) -> Result<MocoState, TrainError> {
    let content = |what: String| TrainError::Content { path: path.to_owned(), what };
    let views = checkpoint.tensors().map_err(|e| content(e.to_string()))?;
    let tensor = |named: (String, safetensors::tensor::TensorView<'_>)| {
        let (name, view) = named;
        let tensor: Tensor = view.load(&Device::Cpu).during("reading a checkpoint")?;
        Ok((name, tensor))
    };
    views.tensors().into_iter().map(tensor).collect()
}
