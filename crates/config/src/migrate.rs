//! Keys that are younger than some stored configs, with the value that means what programs did before.
//!
//! They are for the configs inside run folders and checkpoints, which nobody can complete by hand. A user's own
//! config sets every key.

use crate::error::ConfigError;
use crate::layer::{self, Layer};

/// A key, and what it was before it existed, as TOML.
const ADDED: &[(&str, &str)] =
    &[("run.conv_backend", "\"legacy\""), ("evaluate.activations", "\"f32\"")];

/// What the comment of such a key names as its origin.
const NAME: &str = "older programs";

/// The lowest layer of a stored config.
pub(crate) fn layer() -> Result<Layer, ConfigError> {
    let lines: Vec<String> =
        ADDED.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    layer::parse(NAME.to_owned(), lines.concat())
}
