//! From a loaded config to the parts of a run, and from a checkpoint to an encoder.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use candle_core::DType;
use moco::Moco;
use moco_augment::Recipe;
use moco_config::{LoadedPretrain, load_pretrain_text};
use moco_evaluate::FeatureSet;
use moco_ops::Precision;
use moco_train::{
    FinishOn, Parts, PretrainPlan, Sources, encode, evaluation_recipe, load_state, open_sources,
};

use crate::console::Console;
use crate::device::{Activations, Device};
use crate::exit::{Exit, usage};
use crate::store::open_store;

/// Opens the data and builds the encoder, on `device`, and the augmentation of a config.
///
/// # Errors
/// If files are missing or not what they should be, or the device has no room.
pub fn parts(loaded: &LoadedPretrain, device: &candle_core::Device) -> anyhow::Result<Parts> {
    if let (true, Some(setting)) = (device.is_cpu(), needs_gpu(&loaded.plan)) {
        return Err(usage(Exit::Usage, format!("{setting} needs --device cuda:N")));
    }
    let encoder = loaded.plan.encoder.build(loaded.plan.seed, DType::F32, device)?;
    Ok(Parts { sources: sources(loaded)?, augmentation: Arc::new(recipe(loaded)?), encoder })
}

/// A setting that a CPU cannot follow.
fn needs_gpu(plan: &PretrainPlan) -> Option<&'static str> {
    [
        (plan.input.finish_on == FinishOn::Gpu, "augment.finish_on = \"gpu\""),
        (plan.cuda_graph, "run.cuda_graph = true"),
    ]
    .into_iter()
    .find_map(|(is_set, setting)| is_set.then_some(setting))
}

/// Opens the data of a config, with a bar on standard error while it is drawn or indexed.
///
/// # Errors
/// If files are missing or not what they should be.
pub fn sources(loaded: &LoadedPretrain) -> anyhow::Result<Sources> {
    let n_workers = loaded.plan.workers.decoders.max(loaded.plan.workers.readers).max(2);
    let mut console = Console::detect();
    let mut preparing = |what: &str, done: u64, total: u64| {
        if !console.is_started() {
            console.start(0, total);
        }
        console.advance(done);
        console.status(done, what);
    };
    let store = |address: &str| Ok(open_store(address)?);
    let opened = open_sources(&loaded.data, n_workers, &store, &mut preparing);
    console.finish();
    Ok(opened?)
}

/// The augmentation of a config.
///
/// # Errors
/// If its numbers are out of range.
pub fn recipe(loaded: &LoadedPretrain) -> anyhow::Result<Recipe> {
    Ok(Recipe::new(loaded.recipe)?.with_fidelity(loaded.fidelity))
}

/// A model from a checkpoint, with the config it was trained with.
#[derive(Debug)]
pub struct TrainedEncoder {
    /// Query encoder and all else.
    pub moco: Moco,
    /// The config.
    pub loaded: LoadedPretrain,
    /// The type of the activations while [`labeled_features`] computes.
    pub activations: DType,
}

/// Loads the newest valid checkpoint of a run folder, or a checkpoint file, to where its features are to
/// be computed. f32 is multiplied as f32 there, whatever the run trained with.
///
/// # Errors
/// If there is none, its config does not load, or the device is not there or has no such activations.
pub fn trained_encoder(
    path: &Path,
    device: Device,
    activations: Activations,
) -> anyhow::Result<TrainedEncoder> {
    let (state, config, global_step) = load_state(path)?;
    let loaded = load_pretrain_text(&config, &path.display().to_string())
        .with_context(|| format!("the config inside {}", path.display()))?;
    let plan = &loaded.plan;
    let activations = activations.dtype_on(device, plan.precision)?;
    let encoder = plan.encoder.build(plan.seed, DType::F32, &device.open(Precision::F32)?)?;
    let mut moco = Moco::new(encoder, plan.head, plan.moco.clone(), plan.optimizer, plan.seed)?;
    moco.load_state(&state, global_step)?;
    Ok(TrainedEncoder { moco, loaded, activations })
}

/// A trained encoder's features of its config's training and test images.
///
/// # Errors
/// If the images have no labels, or cannot be read.
pub fn labeled_features(trained: &mut TrainedEncoder) -> anyhow::Result<[FeatureSet; 2]> {
    let plan = &trained.loaded.plan;
    let Some(data) = sources(&trained.loaded)?.labeled else {
        return Err(usage(Exit::DataOrMachine, "the config's data has no labeled test split"));
    };
    let augmentation = evaluation_recipe(plan)?;
    let encoder = trained.moco.encoder_q_mut().encoder_mut();
    let how = (&plan.input, plan.workers, trained.activations);
    let train = encode(encoder, &data.train, &augmentation, how)?;
    Ok([train, encode(encoder, &data.test, &augmentation, how)?])
}

/// A name for a new run: the next free number and the name of the config.
#[must_use]
pub fn default_name(runs: &Path, config: &Path) -> String {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let number = |name: &str| name.split('-').next().and_then(|n| n.parse::<u32>().ok());
    let last = entries.filter_map(|entry| number(&entry.file_name().to_string_lossy())).max();
    let stem = config.file_stem().map_or("run".into(), |stem| stem.to_string_lossy());
    format!("{:04}-{stem}", last.unwrap_or(0) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up() {
        let runs = std::env::temp_dir().join(format!("moco-names-{}", std::process::id()));
        std::fs::create_dir_all(&runs).unwrap();
        let config = Path::new("configs/pretrain/default.toml");
        assert_eq!(default_name(&runs, config), "0001-default");
        std::fs::create_dir_all(runs.join("0007-other")).unwrap();
        std::fs::create_dir_all(runs.join("mine")).unwrap();
        assert_eq!(default_name(&runs, config), "0008-default");
        std::fs::remove_dir_all(&runs).unwrap();
    }
}
