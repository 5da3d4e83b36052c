//! Keys that are younger than some stored configs, with the value that means what programs did before.
//!
//! They are for the configs inside run folders and checkpoints, which nobody can complete by hand. A user's own
//! config sets every key.

use crate::error::ConfigError;
use crate::layer::{self, Layer};

/// A section, a key of it, and what it was before it existed, as TOML.
const ADDED: &[[&str; 3]] =
    &[["run", "conv_backend", "\"legacy\""], ["evaluate", "activations", "\"f32\""]];

/// What the comment of such a key names as its origin.
const NAME: &str = "older programs";

/// What a stored config lacks, as a layer below its own. A section that is not there at all is damage, which no
/// key is added to.
pub(crate) fn layer(stored: &[Layer]) -> Result<Layer, ConfigError> {
    let sections = |section: &str| {
        let tables = stored.iter().filter_map(|layer| layer.table.get(section)?.as_table());
        tables.collect::<Vec<_>>()
    };
    let lacking = ADDED.iter().filter(|[section, key, _]| {
        let sections = sections(section);
        !sections.is_empty() && sections.iter().all(|section| !section.contains_key(*key))
    });
    let lines: String =
        lacking.map(|[section, key, value]| format!("{section}.{key} = {value}\n")).collect();
    layer::parse(NAME.to_owned(), lines)
}
