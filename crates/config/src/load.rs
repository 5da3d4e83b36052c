//! From a path and overrides to plans.

use std::path::Path;

use moco_augment::{Fidelity, RecipeConfig};
use moco_train::{DataPlan, PretrainPlan};

use crate::convert::convert;
use crate::data::scheme;
use crate::encoder;
use crate::error::ConfigError;
use crate::layer::{Layer, parse, parse_set, read_layers};
use crate::merge::Merged;
use crate::migrate::{Provenance, upgrade};
use crate::resolved;

/// A pretraining run as its config describes it.
#[derive(Debug, Clone)]
pub struct LoadedPretrain {
    /// The configuration of the training loop.
    pub plan: PretrainPlan,
    /// The location of the images.
    pub data: DataPlan,
    /// How views are drawn.
    pub recipe: RecipeConfig,
    /// How closely training views follow Pillow; evaluation is always exact.
    pub fidelity: Fidelity,
    /// All keys in force as TOML, each with its origin as a comment; loads again as the same plan.
    pub resolved: String,
}

/// Reads a config: the file at `path` on top of those it extends, then `sets`, each `section.key=value`,
/// in their order. Keys that are younger than the format that it names mean what programs of then did.
///
/// # Errors
/// [`ConfigError::Read`]; [`ConfigError::NothingToExtend`] and [`ConfigError::ExtendsItself`] for a chain of files
/// that does not end; [`ConfigError::Format`] for a config that is younger than this program; or
/// [`ConfigError::Invalid`] for the first key that is unknown, missing, of a wrong type or impossible. Show it with
/// [`ConfigError::render`].
pub fn load_pretrain(path: &Path, sets: &[String]) -> Result<LoadedPretrain, ConfigError> {
    load(read_layers(path, sets)?, Provenance::User)
}

/// Reads a resolved config of a run, such as the one inside a checkpoint, then `sets`, as [`load_pretrain`]
/// does; `name` stands for the file in errors. One without a format has the first.
///
/// # Errors
/// As [`load_pretrain`].
pub fn load_stored_pretrain(
    text: &str,
    name: &str,
    sets: &[String],
) -> Result<LoadedPretrain, ConfigError> {
    let mut layers = vec![parse(name.to_owned(), text.to_owned())?];
    for set in sets {
        layers.push(parse_set(set)?);
    }
    load(layers, Provenance::Run)
}

/// As [`load_stored_pretrain`], without overrides.
///
/// # Errors
/// As [`load_pretrain`].
pub fn load_pretrain_text(text: &str, name: &str) -> Result<LoadedPretrain, ConfigError> {
    load_stored_pretrain(text, name, &[])
}

fn load(layers: Vec<Layer>, provenance: Provenance) -> Result<LoadedPretrain, ConfigError> {
    let mut merged = Merged::new(upgrade(layers, provenance)?);
    drop_outdated(&mut merged);
    let converted = merged.deserialize().and_then(convert);
    let (plan, data, (recipe, fidelity)) =
        converted.map_err(|complaint| merged.diagnose(complaint))?;
    Ok(LoadedPretrain { plan, data, recipe, fidelity, resolved: resolved::print(&merged) })
}

/// Keys of a lower layer that a choice on a higher one leaves without meaning.
fn drop_outdated(merged: &mut Merged) {
    merged.drop_if_outdated("run.steps", "run.epochs");
    merged.drop_if_outdated("run.epochs", "run.steps");
    encoder::drop_outdated(merged);
    let choice =
        |merged: &Merged, key| merged.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    if choice(merged, "data.source").as_deref() != Some("image_folder") {
        merged.drop_if_outdated("data.test_root", "data.source");
    }
    if choice(merged, "data.on_bad_sample").as_deref() != Some("skip") {
        merged.drop_if_outdated("data.bad_sample_budget", "data.on_bad_sample");
    }
    if choice(merged, "data.source").as_deref() != Some("shards") {
        for key in ["manifest", "window_shards", "cache", "cache_bytes", "verify"] {
            merged.drop_if_outdated(&format!("data.{key}"), "data.source");
        }
    }
    let is_store = choice(merged, "data.root").is_some_and(|root| scheme(&root).is_some());
    let of_other_place: &[&str] =
        if is_store { &["data.verify"] } else { &["data.cache", "data.cache_bytes"] };
    for key in of_other_place {
        merged.drop_if_outdated(key, "data.root");
    }
    let unread: &[&str] = match choice(merged, "schedule.kind").as_deref() {
        Some("steps") => &["schedule.every_steps"],
        Some("exponential") => &["schedule.milestones"],
        _ => &["schedule.milestones", "schedule.gamma", "schedule.every_steps"],
    };
    for key in unread {
        merged.drop_if_outdated(key, "schedule.kind");
    }
}
