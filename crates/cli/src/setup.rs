//! What a config and a checkpoint name, opened with a bar on the terminal while data is prepared.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use moco_config::{LoadedPretrain, load_pretrain_text};
use moco_feed::Placement;
use moco_ops::Precision;
use moco_telemetry::{format_duration, time_left};
use moco_train::{
    Components, DataAccess, DataFault, Encoded, OnBadSample, Rejected, SavedRun, Sources,
    TrainError, TrainedEncoder, open_sources, training_recipe,
};

use crate::console::Console;
use crate::device::{Activations, Device};
use crate::ranks::refuse_ranks;
use crate::store::open_store;

/// The components of a run by its config, on `device`.
///
/// # Errors
/// As [`Components::from_plan`].
pub fn components(
    loaded: &LoadedPretrain,
    device: &candle_core::Device,
) -> anyhow::Result<Components> {
    let recipe = training_recipe(loaded.recipe, loaded.fidelity)?;
    with_bar(|access| Components::from_plan(&loaded.plan, &loaded.data, recipe, device, access))
}

/// Opens the data of a config.
///
/// # Errors
/// If files are missing or not what they should be.
pub fn sources(loaded: &LoadedPretrain) -> anyhow::Result<Sources> {
    with_bar(|access| open_sources(&loaded.data, loaded.plan.workers, access))
}

/// Calls `open` with a bar on standard error for what it reports: images drawn or encoded, bytes indexed.
fn with_bar<T>(open: impl FnOnce(DataAccess<'_>) -> Result<T, TrainError>) -> anyhow::Result<T> {
    let mut console = Console::detect();
    let (mut current, mut began) = (String::new(), Instant::now());
    let mut preparing = |what: &str, done: u64, total: u64| {
        if current != what {
            (current, began) = (what.to_owned(), Instant::now());
            tracing::info!("0 of {total} {what}");
            console.start(0, total);
        }
        console.advance(done);
        let left = time_left(began.elapsed(), done, total).map(format_duration);
        console.status(done, &left.map_or(what.to_owned(), |left| format!("{what}, {left} left")));
    };
    let open_store = |address: &str| Ok(open_store(address)?);
    let opened = open(DataAccess { open_store: &open_store, preparing: &mut preparing });
    console.finish();
    Ok(opened?)
}

/// Loads the newest valid checkpoint of a run folder, or a checkpoint file, to where its features are to
/// be computed. f32 is multiplied as f32 there, whatever the run trained with.
///
/// # Errors
/// If there is none, its config does not load, the device is not there or has no such activations, or a launcher
/// started several processes.
pub fn trained_encoder(
    path: &Path,
    device: Device,
    activations: Activations,
) -> anyhow::Result<TrainedEncoder> {
    refuse_ranks()?;
    let saved = SavedRun::load(path)?;
    warn_of_rejected(&saved.rejected, &Console::detect());
    let loaded = load_pretrain_text(&saved.config, &path.display().to_string())
        .with_context(|| format!("the config inside {}", path.display()))?;
    let LoadedPretrain { plan, data, .. } = loaded;
    let dtype = activations.dtype_on(device, plan.precision)?;
    let placement = Placement { device: device.open(Precision::F32)?, dtype };
    Ok(TrainedEncoder::new(&saved, plan, data, placement)?)
}

/// Prints which newer checkpoints were passed over for an older one.
pub fn warn_of_rejected(rejected: &[Rejected], console: &Console) {
    for Rejected { path, reason } in rejected {
        console.warn(&format!("{} was passed over: {reason}", path.display()));
    }
}

/// A trained encoder's features of its config's training and test images, in this order. Images that cannot be
/// used are left out up to `skip_bad` of each split, if it is given, and otherwise as the config says; each is
/// named on standard error.
///
/// # Errors
/// If the images have no labels, or cannot be read.
pub fn labeled_features(
    trained: &mut TrainedEncoder,
    skip_bad: Option<u64>,
) -> anyhow::Result<[Encoded; 2]> {
    if let Some(budget) = skip_bad {
        trained.plan.on_bad_sample = OnBadSample::Skip { budget };
    }
    let encoded = with_bar(|access| trained.labeled_features(access));
    let encoded = encoded.map_err(|error| match error.downcast::<TrainError>() {
        Ok(error) => with_advice(error),
        Err(error) => error,
    })?;
    let console = Console::detect();
    for (split, encoded) in ["training", "test"].into_iter().zip(&encoded) {
        for sample in &encoded.bad_samples {
            console.line(&format!("skipped: {sample}"));
        }
        let Encoded { features, bad_samples, n_unlabeled, .. } = encoded;
        let without = |n: u64, what: &str| match n {
            0 => String::new(),
            n => format!(", {n} {what}"),
        };
        console.line(&format!(
            "{} {split} images{}{}",
            features.len(),
            without(bad_samples.len() as u64, "skipped"),
            without(*n_unlabeled, "without a label"),
        ));
    }
    Ok(encoded)
}

/// What to do about an image that cannot be used.
fn with_advice(error: TrainError) -> anyhow::Error {
    let advice = match &error {
        TrainError::Feed(source) if DataFault::of(source) == DataFault::Image => Some(
            "an image cannot be used; repair or remove it, or leave out up to N such images of each \
             split by --skip-bad N",
        ),
        TrainError::BadSampleBudget { .. } => {
            Some("too many images cannot be used; give a larger --skip-bad N")
        }
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match advice {
        Some(advice) => error.context(advice),
        None => error,
    }
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
