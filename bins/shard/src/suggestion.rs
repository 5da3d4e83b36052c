//! A config for a folder of images that were looked at.

use std::path::Path;

use anyhow::Context as _;
use toml::Value;

/// The recipe that is extended, from the root of the repository.
const RECIPE: &str = "configs/pretrain/photos.toml";
/// Its batch, which small folders cannot fill.
const BATCH: u64 = 64;
/// The recipe's budget of bad samples.
const BUDGET: u64 = 1000;
/// Times that an image is met: the recipe's epochs, and room for substitutes that are bad too.
const MEETINGS: u64 = 200;

/// What the config depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) n_sound: u64,
    pub(crate) n_broken: u64,
    /// Files that look like images and were left out unopened.
    pub(crate) n_unusable: u64,
    /// Whether some image has an orientation tag that turns it.
    pub(crate) is_turned: bool,
    /// Whether there are folders of classes and nothing beside them.
    pub(crate) is_labeled: bool,
}

/// TOML that trains on the images in `root`.
pub(crate) fn suggestion(root: &Path, facts: Facts) -> anyhow::Result<String> {
    let Facts { n_sound, n_broken, n_unusable, is_turned, is_labeled } = facts;
    let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
    let recipe = Path::new(RECIPE);
    let recipe = recipe.canonicalize().unwrap_or_else(|_| recipe.to_owned());
    let text = |path: &Path| Value::from(path.display().to_string());
    let source = if is_labeled { "image_folder" } else { "unlabeled_folder" };
    let exif = if is_turned { "apply" } else { "ignore" };
    let mut lines = vec![
        format!("extends = {}", text(&recipe)),
        String::new(),
        "[data]".to_owned(),
        format!("source = \"{source}\""),
        format!("root = {}", text(&root)),
        format!("exif = \"{exif}\""),
    ];
    let budget = n_broken.saturating_mul(MEETINGS).max(n_unusable).max(BUDGET);
    lines.push(format!("bad_sample_budget = {budget}"));
    if n_sound + n_broken < BATCH {
        let batch = (n_sound + n_broken) / 2 * 2;
        lines.extend([
            String::new(),
            "[optim]".to_owned(),
            format!("batch_size = {}", batch.max(2)),
        ]);
    }
    Ok(lines.join("\n"))
}
