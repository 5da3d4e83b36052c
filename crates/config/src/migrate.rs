//! The format of a config, and what a config of an older one means.
//!
//! A format is the table of keys that a program knows. The number grows when a key comes that older configs lack,
//! so that a run, a checkpoint or a config stays readable: [`MIGRATIONS`] says what each change means for them.

use moco_train::FORMAT;
use toml::Value;

use crate::error::{ConfigError, Diagnostic, Place};
use crate::layer::{self, Layer, SET};

/// The changes in a version of the format.
struct Migration {
    /// The format that has it.
    to: u32,
    /// Sections and keys that came, each with the TOML value that means what older programs did.
    added: &'static [[&'static str; 3]],
}

/// All formats since the first, which had no number.
const MIGRATIONS: &[Migration] = &[
    Migration {
        to: 2,
        added: &[
            ["run", "conv_backend", "\"legacy\""],
            ["moco", "mechanism", "\"queue\""],
            ["optim", "kind", "\"sgd\""],
            ["optim", "warmup_epochs", "0"],
            ["evaluate", "activations", "\"f32\""],
        ],
    },
    Migration { to: 3, added: &[["data", "exif", "\"ignore\""]] },
];

/// The format of configs without a number.
const FIRST: u32 = 1;

/// The origin in the comment of an added key.
const NAME: &str = "older programs";

/// Where the layers come from, which decides what a missing number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// A user's files, which say their format.
    User,
    /// A run folder or a checkpoint, which older programs wrote without one.
    Run,
}

/// Brings the layers to today's format: keys that came after theirs are added as the lowest layer, with the values
/// that mean what older programs did. A section that is missing as a whole is damage, and gets no keys.
pub(crate) fn upgrade(
    mut layers: Vec<Layer>,
    provenance: Provenance,
) -> Result<Vec<Layer>, ConfigError> {
    let Some(format) = format(&layers, provenance)? else { return Ok(layers) };
    let has = |section: &str, key: Option<&str>| {
        let mut tables = layers.iter().filter_map(|layer| layer.table.get(section)?.as_table());
        tables.any(|table| key.is_none_or(|key| table.contains_key(key)))
    };
    let younger = MIGRATIONS.iter().filter(|migration| migration.to > format);
    let added = younger.flat_map(|migration| migration.added);
    let lacking = added.filter(|[section, key, _]| has(section, None) && !has(section, Some(key)));
    let lines = lacking.map(|[section, key, value]| format!("{section}.{key} = {value}\n"));
    let mut text = format!("format = {FORMAT}\n");
    text.extend(lines);
    for layer in &mut layers {
        if let Some(number) = layer.table.get_mut(KEY) {
            *number = Value::from(FORMAT);
        }
    }
    layers.insert(0, layer::parse(NAME.to_owned(), text)?);
    Ok(layers)
}

const KEY: &str = "format";

/// The format of the layers if it is an older one; `None` where there is nothing to add.
fn format(layers: &[Layer], provenance: Provenance) -> Result<Option<u32>, ConfigError> {
    let Some(layer) = layers.iter().rfind(|layer| layer.table.contains_key(KEY)) else {
        return match provenance {
            Provenance::Run => Ok(Some(FIRST)),
            Provenance::User => Err(missing(layers)),
        };
    };
    // Another type is refused with all other values.
    let Some(number) = layer.table.get(KEY).and_then(Value::as_integer) else { return Ok(None) };
    match u32::try_from(number) {
        Ok(FORMAT) => Ok(None),
        Ok(older) if (FIRST..FORMAT).contains(&older) => Ok(Some(older)),
        _ => {
            let message = if number > i64::from(FORMAT) {
                format!("this config has format {number}, and this program reads up to {FORMAT}")
            } else {
                format!("format must be from {FIRST} to {FORMAT}, got {number}")
            };
            let help = "use the release that wrote it, or a later one";
            let span = layer.keys.iter().find(|key| key.path == KEY).map(|key| key.value.clone());
            let place = layer.place(span.unwrap_or_default());
            Err(ConfigError::Format(Diagnostic::new(message, place).help(Some(help.to_owned()))))
        }
    }
}

fn missing(layers: &[Layer]) -> ConfigError {
    let help = format!(
        "`format = {FORMAT}` at the top, or in a file that this one extends such as \
         configs/pretrain/base.toml, says which keys there are; one from before there was a number is \
         `format = {FIRST}`"
    );
    let file = layers.iter().rfind(|layer| layer.name != SET);
    let place = file.map_or_else(
        || Place { name: SET.into(), text: String::new(), span: 0..0 },
        |file| file.place(0..0),
    );
    ConfigError::Format(Diagnostic::new("missing key `format`", place).help(Some(help)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_up_to_todays_has_its_row() {
        let rows: Vec<u32> = MIGRATIONS.iter().map(|migration| migration.to).collect();
        assert_eq!(rows, (FIRST + 1..=FORMAT).collect::<Vec<u32>>());
    }
}
