//! Texts that make up a config: files, each after the one it extends, then `--set` overrides.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Diagnostic, Place};

/// The name of an override's text in messages.
pub(crate) const SET: &str = "--set";

/// One source of keys, parsed.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The file as the user named it, or [`SET`].
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) table: toml::Table,
    /// Where each key of `table` is in `text`, in the order of the text.
    pub(crate) keys: Vec<KeySpan>,
}

impl Layer {
    /// A part of its text.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place { name: self.name.clone(), text: self.text.clone(), span }
    }
}

/// The location of a key.
#[derive(Debug, Clone)]
pub(crate) struct KeySpan {
    /// Dotted path; elements of an array as `path[0]`.
    pub(crate) path: String,
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// The layers of a config, lowest first.
pub(crate) fn read_layers(path: &Path, sets: &[String]) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    read_chain(path, &mut Vec::new(), &mut layers)?;
    for set in sets {
        layers.push(parse_set(set)?);
    }
    Ok(layers)
}

/// Reads the file at `path` after those it extends; `above` are the files that extend it.
fn read_chain(
    path: &Path,
    above: &mut Vec<PathBuf>,
    layers: &mut Vec<Layer>,
) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    above.push(fs::canonicalize(path).map_err(unreadable)?);
    let mut layer = parse(path.display().to_string(), text)?;
    if let Some(parent) = take_extends(path, &mut layer)? {
        if above.contains(&canonical(&parent, &layer)?) {
            let message = format!("{} extends itself", parent.display());
            return Err(ConfigError::ExtendsItself(at_extends(&layer, &message)));
        }
        layer.keys.retain(|key| key.path != EXTENDS);
        read_chain(&parent, above, layers)?;
    }
    layers.push(layer);
    Ok(())
}

const EXTENDS: &str = "extends";

/// The file that a layer extends, relative to its own folder.
fn take_extends(path: &Path, layer: &mut Layer) -> Result<Option<PathBuf>, ConfigError> {
    match layer.table.remove(EXTENDS) {
        None => Ok(None),
        Some(toml::Value::String(parent)) => {
            Ok(Some(path.parent().unwrap_or(Path::new("")).join(parent)))
        }
        Some(other) => {
            let got = other.type_str();
            Err(at_extends(layer, &format!("extends must be a file name, got {got}")).into())
        }
    }
}

/// The one path of a file that `layer` extends.
fn canonical(parent: &Path, layer: &Layer) -> Result<PathBuf, ConfigError> {
    fs::canonicalize(parent).map_err(|source| {
        let message = format!("cannot read {}, which this file extends: {source}", parent.display());
        let help = "`extends` is a path from the folder of this file: write there the path of the file \
                    that is meant, or copy that file, with what it extends itself, to this folder; \
                    `cargo xtask pretrain CONFIG --print-config` prints a config that extends nothing";
        ConfigError::NothingToExtend(at_extends(layer, &message).help(Some(help.to_owned())))
    })
}

fn at_extends(layer: &Layer, message: &str) -> Diagnostic {
    let span = layer.keys.iter().find(|key| key.path == EXTENDS).map(|key| key.value.clone());
    Diagnostic::new(message, layer.place(span.unwrap_or_default()))
}

pub(crate) fn parse(name: String, text: String) -> Result<Layer, ConfigError> {
    let syntax = |error: &toml::de::Error| {
        let span = error.span().unwrap_or_default();
        let place = Place { name: name.clone(), text: text.clone(), span };
        Diagnostic::new(error.message(), place)
    };
    let table = text.parse::<toml::Table>().map_err(|error| syntax(&error))?;
    let spans = DeTable::parse(&text).map_err(|error| syntax(&error))?;
    let mut keys = Vec::new();
    collect_table("", spans.get_ref(), &mut keys);
    keys.sort_by_key(|key| key.key.start);
    Ok(Layer { name, table, keys, text })
}

fn collect_table(prefix: &str, table: &DeTable<'_>, keys: &mut Vec<KeySpan>) {
    for (key, value) in table.iter() {
        let path = match prefix {
            "" => key.get_ref().to_string(),
            _ => format!("{prefix}.{}", key.get_ref()),
        };
        keys.push(KeySpan { path: path.clone(), key: key.span(), value: value.span() });
        match value.get_ref() {
            DeValue::Table(inner) => collect_table(&path, inner, keys),
            DeValue::Array(elements) => {
                for (i, element) in elements.iter().enumerate() {
                    let (path, span) = (format!("{path}[{i}]"), element.span());
                    keys.push(KeySpan { path, key: span.clone(), value: span });
                }
            }
            _ => {}
        }
    }
}

/// `a.b=1` is TOML; in `a.b=text` the word is taken as a string, since a shell eats quotes.
pub(crate) fn parse_set(set: &str) -> Result<Layer, ConfigError> {
    let Some((key, value)) = set.split_once('=') else {
        let place = Place { name: SET.into(), text: set.into(), span: 0..set.len() };
        return Err(Diagnostic::new("expected section.key=value", place).into());
    };
    let is_toml = DeValue::parse(value.trim()).is_ok();
    let quoted = || format!("{}={}", key, toml::Value::from(value.trim()));
    parse(SET.into(), if is_toml { set.to_owned() } else { quoted() })
}
