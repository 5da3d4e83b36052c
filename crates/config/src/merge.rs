//! Layers put on top of each other, with the memory of where each key was set.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::complaint::{Complaint, Part};
use crate::error::{Diagnostic, Place};
use crate::layer::{KeySpan, Layer, SET};

/// The keys that are in force, and all layers they came from.
#[derive(Debug)]
pub(crate) struct Merged {
    /// Lowest first.
    layers: Vec<Layer>,
    table: Table,
}

/// A key and the layer that set it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    level: usize,
    layer: &'a Layer,
    span: &'a KeySpan,
}

impl Origin<'_> {
    fn place(&self, part: Part) -> Place {
        let KeySpan { path: _, key, value } = self.span;
        let span = match part {
            Part::Key => key,
            Part::Value => value,
        };
        self.layer.place(span.clone())
    }

    /// `file:line`, or `--set`.
    pub(crate) fn short(&self) -> String {
        let place = self.place(Part::Key).to_string();
        match place.rsplit_once(':') {
            Some((file_and_line, _column)) if self.layer.name != SET => file_and_line.to_owned(),
            _ => SET.to_owned(),
        }
    }
}

impl Merged {
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        let mut table = Table::new();
        for layer in &layers {
            overlay(&mut table, &layer.table);
        }
        Self { layers, table }
    }

    /// Drops `path` if `choice`, which makes it meaningless, was set on a higher layer: who chooses
    /// another schedule need not know what the file below set for the old one.
    pub(crate) fn drop_if_outdated(&mut self, path: &str, choice: &str) {
        let level = |path| self.origin(path).map(|origin| origin.level);
        if level(path) >= level(choice) {
            return;
        }
        if let Some((section, key)) = path.split_once('.')
            && let Some(Value::Table(section)) = self.table.get_mut(section)
        {
            section.remove(key);
        }
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.table.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    /// Where the value in force was set.
    pub(crate) fn origin(&self, path: &str) -> Option<Origin<'_>> {
        self.origins(path).next_back()
    }

    /// Everywhere a key was set, lowest layer first.
    fn origins(&self, path: &str) -> impl DoubleEndedIterator<Item = Origin<'_>> {
        self.layers.iter().enumerate().filter_map(move |(level, layer)| {
            let span = layer.keys.iter().find(|key| key.path == path)?;
            Some(Origin { level, layer, span })
        })
    }

    /// The paths of all keys that are no sections, in the order in which the layers first set them.
    pub(crate) fn leaves(&self) -> Vec<&str> {
        let mut leaves: Vec<&str> = Vec::new();
        for KeySpan { path, .. } in self.layers.iter().flat_map(|layer| &layer.keys) {
            let is_leaf = self.get(path).is_some_and(|value| !value.is_table());
            if is_leaf && !leaves.contains(&path.as_str()) {
                leaves.push(path);
            }
        }
        leaves
    }

    /// The table as a struct.
    pub(crate) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Complaint> {
        serde_path_to_error::deserialize(Value::Table(self.table.clone())).map_err(|error| {
            let path = error.path().to_string();
            Complaint::from_serde(&path, error.inner().message())
        })
    }

    /// Points a complaint at the newest of the keys it is about, and says where else they are set.
    pub(crate) fn diagnose(&self, complaint: Complaint) -> Diagnostic {
        let Complaint { keys, part, message, label, help } = complaint;
        let newest = keys.iter().filter_map(|key| self.origin(key)).max_by_key(|one| one.level);
        let place = match (newest, self.layers.iter().rfind(|layer| layer.name != SET)) {
            (Some(origin), _) => origin.place(part),
            (None, Some(file)) => file.place(0..0),
            (None, None) => Place { name: SET.into(), text: String::new(), span: 0..0 },
        };
        let mut notes = Vec::new();
        for key in &keys {
            let all = self.origins(key);
            let others = all.filter(|one| newest.is_none_or(|newest| !same(one, &newest)));
            for other in others {
                let again = newest.is_some_and(|newest| newest.span.path == other.span.path);
                let verb = if again { "was also" } else { "is" };
                notes.push(format!("`{key}` {verb} set at {}", other.place(Part::Key)));
            }
        }
        Diagnostic::new(message, place).label(label).notes(notes).help(help)
    }
}

fn same(a: &Origin<'_>, b: &Origin<'_>) -> bool {
    a.level == b.level && a.span.path == b.span.path
}

fn overlay(below: &mut Table, above: &Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => overlay(old, new),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}
