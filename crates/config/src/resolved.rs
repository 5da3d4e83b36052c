//! The resolved config as text, and the comparison of two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use toml::Value;

use crate::error::ConfigError;
use crate::layer::{self, Layer, SET};
use crate::merge::Merged;
use crate::migrate::{Provenance, upgrade};
use crate::resume_keys::RESUME_MAY_CHANGE;

/// All keys in force, in the order of the files, each with the place that set it; keys of no section first, as TOML
/// demands.
pub(crate) fn print(merged: &Merged) -> String {
    let mut sections: Vec<(&str, String)> = vec![("", String::new())];
    for path in merged.leaves() {
        let (section, key) = path.split_once('.').unwrap_or(("", path));
        let (Some(value), Some(origin)) = (merged.get(path), merged.origin(path)) else {
            continue;
        };
        // A line break in a file name would end the comment.
        let line = format!("{key} = {value}  # {}\n", origin.short().escape_debug());
        match sections.iter_mut().find(|(name, _)| *name == section) {
            Some((_, lines)) => lines.push_str(&line),
            None => sections.push((section, line)),
        }
    }
    let blocks = sections.iter().map(|(section, lines)| match *section {
        "" => lines.clone(),
        section => format!("[{section}]\n{lines}"),
    });
    blocks.collect::<Vec<_>>().join("\n")
}

/// A key whose value differs between two resolved configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Dotted path.
    pub key: String,
    /// Value in the old config, as TOML.
    pub old: Option<String>,
    /// Value in the new one.
    pub new: Option<String>,
    /// What set it in the new one: `--set`, or a file and line; empty if nothing did.
    pub origin: String,
}

/// The keys whose values differ, sorted by name.
///
/// # Errors
/// [`ConfigError::Invalid`] if one of the texts is not TOML.
pub fn changed_keys(old_resolved: &str, new_resolved: &str) -> Result<Vec<KeyChange>, ConfigError> {
    let old = values(&layer::parse("old config".into(), old_resolved.into())?);
    changes_from(&old, new_resolved)
}

/// What `config.toml` of a run is beside the config in its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredConfig {
    /// The same in every key.
    Same,
    /// There is none, or it is no text.
    Missing,
    /// A part of it, or no TOML: a crash or a full disk cut it.
    Torn,
    /// Another config; `old` is the checkpoint's value and `new` the file's.
    Edited(Vec<KeyChange>),
}

/// Compares the text of a run's `config.toml`, if there is one, with the config in its checkpoint.
///
/// # Errors
/// [`ConfigError::Invalid`] if the checkpoint's is not TOML.
pub fn compare_stored(
    file: Option<&str>,
    in_checkpoint: &str,
) -> Result<StoredConfig, ConfigError> {
    let old = values(&layer::parse("the config in the checkpoint".into(), in_checkpoint.into())?);
    let Some(file) = file else { return Ok(StoredConfig::Missing) };
    let is_cut = file.len() < in_checkpoint.len() && in_checkpoint.starts_with(file);
    let Ok(new) = layer::parse("config.toml".into(), file.into()) else {
        return Ok(StoredConfig::Torn);
    };
    match changes(&old, &values(&new)) {
        changes if changes.is_empty() => Ok(StoredConfig::Same),
        _ if is_cut => Ok(StoredConfig::Torn),
        changes => Ok(StoredConfig::Edited(changes)),
    }
}

/// Values by their keys, each with the comment after it.
type Values = BTreeMap<String, (Value, String)>;

fn changes_from(old: &Values, new_resolved: &str) -> Result<Vec<KeyChange>, ConfigError> {
    let new = values(&layer::parse("new config".into(), new_resolved.into())?);
    Ok(changes(old, &new))
}

fn changes(old: &Values, new: &Values) -> Vec<KeyChange> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter_map(|key| {
        let (before, after) = (old.get(key), new.get(key));
        if before.map(|(value, _)| value) == after.map(|(value, _)| value) {
            return None;
        }
        Some(KeyChange {
            key: key.clone(),
            old: before.map(|(value, _)| value.to_string()),
            new: after.map(|(value, _)| value.to_string()),
            origin: after.map(|(_, origin)| origin.clone()).unwrap_or_default(),
        })
    });
    changed.collect()
}

/// The changes that a resume of `run` would make, all of which are among [`RESUME_MAY_CHANGE`]. A key that the
/// old config lacks since it is younger had the value that means what programs of then did.
///
/// # Errors
/// [`ConfigError::ResumeChanges`] names the others; as [`changed_keys`].
pub fn check_resume(
    run: &str,
    old_resolved: &str,
    new_resolved: &str,
) -> Result<Vec<KeyChange>, ConfigError> {
    let stored = vec![layer::parse("old config".into(), old_resolved.into())?];
    let old = upgrade(stored, Provenance::Run)?.iter().flat_map(values).collect();
    let changes = changes_from(&old, new_resolved)?;
    let refused = changes.iter().filter(|change| !may_change(&change.key));
    let would_change: Vec<String> = refused.map(describe).collect();
    if would_change.is_empty() {
        return Ok(changes);
    }
    Err(ConfigError::ResumeChanges { run: run.to_owned(), would_change })
}

fn may_change(key: &str) -> bool {
    RESUME_MAY_CHANGE.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(section) => key.starts_with(section),
        None => key == *allowed,
    })
}

fn describe(KeyChange { key, old, new, origin }: &KeyChange) -> String {
    let mut text = match old {
        Some(old) => format!("{key} = {old}; "),
        None => format!("no {key}; "),
    };
    // Writing to a string cannot fail.
    let written = match new {
        Some(new) if origin == SET => write!(text, "--set {key}={new} would change it"),
        Some(new) => write!(text, "{origin} would change it to {new}"),
        None => write!(text, "the new config does not set it"),
    };
    debug_assert_eq!(written, Ok(()));
    text
}

/// Each key that is no section, with its value and its trailing comment.
fn values(layer: &Layer) -> Values {
    let mut values = BTreeMap::new();
    collect("", &layer.table, &mut |path, value| {
        let span = layer.keys.iter().find(|key| key.path == path).map(|key| key.value.clone());
        let rest = span.and_then(|span| layer.text.get(span.end..)).unwrap_or("");
        let comment = rest.lines().next().unwrap_or("").trim().trim_start_matches('#').trim();
        values.insert(path, (normal(value), comment.to_owned()));
    });
    values
}

fn collect(prefix: &str, table: &toml::Table, leaf: &mut impl FnMut(String, &Value)) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => collect(&path, inner, leaf),
            value => leaf(path, value),
        }
    }
}

/// A whole number and the same number with a point are no difference.
fn normal(value: &Value) -> Value {
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            Value::Integer(*number as i64)
        }
        Value::Array(elements) => Value::Array(elements.iter().map(normal).collect()),
        other => other.clone(),
    }
}
