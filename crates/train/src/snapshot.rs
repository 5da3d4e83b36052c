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

/// The format of configs, run folders and checkpoints that this release writes, and the newest it reads. It grows
/// when a config has another key, or a checkpoint another tensor or entry, than older programs wrote;
/// `config/src/migrate.rs` says what older ones mean.
pub const FORMAT: u32 = 2;

/// Metadata key of the format; checkpoints of format 1 lack it.
const FORMAT_KEY: &str = "format";
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
            (FORMAT_KEY.to_owned(), FORMAT.to_string()),
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
/// If a younger program wrote it, or a tensor has a type that candle does not know.
pub(crate) fn state(checkpoint: &Checkpoint, path: &Path) -> Result<MocoState, TrainError> {
    let content = |what: String| TrainError::Content { path: path.to_owned(), what };
    if let Some(found) = checkpoint.metadata.get(FORMAT_KEY)
        && found.parse().map_or(true, |number: u32| number > FORMAT)
    {
        let (path, found) = (path.to_owned(), found.clone());
        return Err(TrainError::TooNew { path, found, supported: FORMAT });
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_a_later_release_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::open(folder.path(), 9).unwrap();
        let path = |step: u64| folder.path().join(format!("step-{step:010}.safetensors"));
        let config = (CONFIG.to_owned(), "seed = 1".to_owned());
        for (step, format) in [(1, None), (2, Some("1")), (3, Some("2"))] {
            let format = format.map(|format| (FORMAT_KEY.to_owned(), format.to_owned()));
            let metadata = [config.clone()].into_iter().chain(format).collect();
            checkpoints.save(step, &MocoState::new(), &metadata).unwrap();
            let (state, text, global_step) = load_state(&path(step)).unwrap();
            assert_eq!((state.len(), text.as_str(), global_step), (0, "seed = 1", step));
        }
        for (step, format) in [(4, "3"), (5, "new")] {
            let metadata = BTreeMap::from([(FORMAT_KEY.to_owned(), format.to_owned())]);
            checkpoints.save(step, &MocoState::new(), &metadata).unwrap();
            assert_eq!(
                load_state(&path(step)).unwrap_err().to_string(),
                format!(
                    "{} has format {format}, and this program reads up to 2; \
                     use the release that wrote it",
                    path(step).display()
                )
            );
        }
    }
}
