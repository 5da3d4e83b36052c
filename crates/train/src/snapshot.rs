//! The state of a run as a checkpoint, and back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use moco::{Moco, MocoState};
use moco_checkpoint::{Checkpoint, CheckpointDir};
use moco_ops::convolution_choices;
use moco_pipeline::{PipelineError, Sink};

use crate::error::{During, TrainError};

/// Metadata key of the resolved config.
const CONFIG: &str = "config";
/// Metadata key of the seconds a run has taken so far.
const WALL_SECONDS: &str = "wall_seconds";
/// Metadata key of the bad samples in the batches that were trained on.
const BAD_SAMPLES: &str = "bad_samples";

/// Metadata key of the algorithms of a GPU's convolutions.
const CONVOLUTIONS: &str = "convolutions";

/// A copy of a run's state that the writer owns: the model's own tensors change in place.
pub(crate) struct Snapshot {
    global_step: u64,
    tensors: MocoState,
    metadata: BTreeMap<String, String>,
}

impl Snapshot {
    pub(crate) fn of(
        moco: &Moco,
        config: &str,
        (wall_seconds, n_bad_samples): (f64, u64),
    ) -> Result<Self, TrainError> {
        let mut tensors = MocoState::new();
        for (name, tensor) in moco.state()? {
            let copy = tensor.contiguous().and_then(|t| {
                if t.device().is_cpu() { t.copy() } else { t.to_device(&Device::Cpu) }
            });
            let copy = copy.during("copying the state")?;
            tensors.insert(name, copy);
        }
        let mut metadata = BTreeMap::from([
            (CONFIG.to_owned(), config.to_owned()),
            (WALL_SECONDS.to_owned(), wall_seconds.to_string()),
            (BAD_SAMPLES.to_owned(), n_bad_samples.to_string()),
        ]);
        // Another process would measure anew and might choose algorithms with other bits.
        let choices = convolution_choices(moco.queue().keys().device())?;
        metadata.extend(choices.map(|choices| (CONVOLUTIONS.to_owned(), choices)));
        Ok(Self { global_step: moco.global_step(), tensors, metadata })
    }
}

/// The checkpoint writer: a thread that takes one snapshot at a time.
pub(crate) fn writer(checkpoints: CheckpointDir) -> Result<Sink<Snapshot>, PipelineError> {
    Sink::spawn("checkpoint", 0, move |snapshot: Snapshot| {
        let Snapshot { global_step, tensors, metadata } = snapshot;
        checkpoints.save(global_step, &tensors, &metadata)?;
        Ok(())
    })
}

/// The seconds that a run had taken when a checkpoint was made.
pub(crate) fn wall_seconds(checkpoint: &Checkpoint) -> f64 {
    checkpoint.metadata.get(WALL_SECONDS).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// The bad samples that a run had met when a checkpoint was made.
pub(crate) fn n_bad_samples(checkpoint: &Checkpoint) -> u64 {
    checkpoint.metadata.get(BAD_SAMPLES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The algorithms that the convolutions of a run on a GPU were computed by.
pub(crate) fn convolutions(checkpoint: &Checkpoint) -> Option<&str> {
    checkpoint.metadata.get(CONVOLUTIONS).map(String::as_str)
}

/// The tensors of a verified checkpoint. `path` is for the error.
///
/// # Errors
/// If a tensor has a type that candle does not know.
pub(crate) fn state(checkpoint: &Checkpoint, path: &Path) -> Result<MocoState, TrainError> {
    let content = |what: String| TrainError::Content { path: path.to_owned(), what };
    let views = checkpoint.tensors().map_err(|e| content(e.to_string()))?;
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let tensor: Tensor = view.load(&Device::Cpu).during("reading a checkpoint")?;
        Ok((name, tensor))
    };
    views.tensors().into_iter().map(tensor).collect()
}

/// A checkpoint's tensors, config and number of steps: for the stages that use a trained encoder. A
/// folder stands for its newest valid checkpoint (a run, or its `checkpoints`).
///
/// # Errors
/// If there is no valid checkpoint.
pub fn load_state(path: &Path) -> Result<(MocoState, String, u64), TrainError> {
    let (checkpoint, path): (Checkpoint, PathBuf) = if path.is_dir() {
        let inner = path.join("checkpoints");
        let folder = if inner.is_dir() { inner } else { path.to_owned() };
        let newest = moco_checkpoint::newest_valid(&folder)?;
        (newest.checkpoint, newest.path)
    } else {
        (CheckpointDir::load(path)?, path.to_owned())
    };
    let tensors = state(&checkpoint, &path)?;
    let config = checkpoint.metadata.get(CONFIG).cloned().ok_or_else(|| TrainError::Content {
        path,
        what: "the metadata lacks `config`; was it written by pretrain?".into(),
    })?;
    Ok((tensors, config, checkpoint.global_step))
}
