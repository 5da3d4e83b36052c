//! `metrics.jsonl`: one JSON object a line, cut back to the checkpoint when a run is resumed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::TelemetryError;

/// Appends JSON objects to a file, each on a line of its own and written at once.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Opens the file at its end and creates it where it is missing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn append(path: &Path) -> Result<Self, TelemetryError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(TelemetryError::io("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes one line. A float that is not finite becomes `null`, since JSON has no other word for it.
    ///
    /// # Errors
    /// The value is no JSON object, or the file cannot be written.
    pub fn write(&mut self, object: &impl Serialize) -> Result<(), TelemetryError> {
        let mut line = serde_json::to_string(object)
            .map_err(|source| TelemetryError::Serialize { path: self.path.clone(), source })?;
        if !line.starts_with('{') {
            return Err(TelemetryError::NotAnObject { path: self.path.clone(), got: line });
        }
        line.push('\n');
        // One call without a buffer: a reader never sees half a line unless the disk is full.
        self.file.write_all(line.as_bytes()).map_err(TelemetryError::io("write", &self.path))
    }
}

/// Drops every line whose `step` is greater than `global_step`, and an incomplete last line, so that the
/// curve of a run resumed there has no step twice. Returns the number of lines dropped.
///
/// A line without `step` stays. The file is replaced as a whole and durably, or not touched if there is
/// nothing to drop; a missing file has nothing to drop.
///
/// # Errors
/// The file cannot be read or replaced, a complete line is not JSON, or a step is not a whole number.
pub fn truncate_after(path: &Path, global_step: u64) -> Result<usize, TelemetryError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(TelemetryError::io("read", path)(error)),
    };
    let (mut kept, mut n_dropped) = (Vec::with_capacity(text.len()), 0);
    for (line_idx, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let is_complete = line.ends_with(b"\n");
        if is_complete && step_of(path, line_idx + 1, line)?.is_none_or(|step| step <= global_step)
        {
            kept.extend_from_slice(line);
        } else {
            n_dropped += 1;
        }
    }
    if n_dropped > 0 {
        replace(path, &kept).map_err(TelemetryError::io("replace", path))?;
    }
    Ok(n_dropped)
}

fn step_of(path: &Path, line_number: usize, line: &[u8]) -> Result<Option<u64>, TelemetryError> {
    let path = || path.to_owned();
    let object: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|source| TelemetryError::NotJson { path: path(), line_number, source })?;
    let Some(step) = object.get("step") else { return Ok(None) };
    let bad = || TelemetryError::BadStep { path: path(), line_number, got: step.to_string() };
    step.as_u64().map(Some).ok_or_else(bad)
}

/// A crash leaves the old file or the new one: the new bytes are on the disk before the name is, and the
/// name is once the folder has been synced.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new_path = path.with_added_extension("tmp");
    let mut new_file = File::create(&new_path)?;
    new_file.write_all(bytes)?;
    new_file.sync_all()?;
    std::fs::rename(&new_path, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Step {
        step: u64,
        loss: f64,
    }

    fn folder_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn lines_are_appended_and_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::append(&path).unwrap();
        writer.write(&Step { step: 1, loss: 8.25 }).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1,\"loss\":8.25}\n");
        let mut writer = MetricsWriter::append(&path).unwrap();
        writer.write(&Step { step: 2, loss: f64::NAN }).unwrap();
        writer.write(&serde_json::json!({"note": "two\nlines"})).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"step\":1,\"loss\":8.25}\n{\"step\":2,\"loss\":null}\n{\"note\":\"two\\nlines\"}\n"
        );
    }

    #[test]
    fn what_is_no_object_is_refused_and_not_written() {
        let (_folder, path) = folder_with("");
        let mut writer = MetricsWriter::append(&path).unwrap();
        let error = writer.write(&[1, 2]).unwrap_err().to_string();
        assert_eq!(error, format!("a line of {} must be a JSON object, got [1,2]", path.display()));
        let keyed_by_list = std::collections::BTreeMap::from([(vec![1], 2)]);
        let error = writer.write(&keyed_by_list).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot write a line of {}: key must be a string", path.display())
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn later_steps_and_a_torn_last_line_are_dropped() {
        let (one, two, five) =
            ("{\"step\":1}\n", "{\"loss\":3.5, \"step\": 2}\n", "{\"step\":5}\n");
        let note = "{\"note\":\"no step\"}\n";
        for (text, global_step, kept, n_dropped) in [
            ([one, two, five].concat(), 2, [one, two].concat(), 1),
            ([one, two, five].concat(), 5, [one, two, five].concat(), 0),
            ([one, two, five].concat(), 0, String::new(), 3),
            // The steps of two processes that overlapped need not be in order.
            ([one, five, two].concat(), 4, [one, two].concat(), 1),
            ([one, "{\"step\":2,\"lo"].concat(), 9, one.to_owned(), 1),
            ([one, "{\"step\":2}"].concat(), 9, one.to_owned(), 1),
            ([note, five, note].concat(), 1, [note, note].concat(), 1),
            (String::new(), 3, String::new(), 0),
        ] {
            let (folder, path) = folder_with(&text);
            assert_eq!(truncate_after(&path, global_step).unwrap(), n_dropped, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept, "{text}");
            assert_eq!(truncate_after(&path, global_step).unwrap(), 0, "twice: {text}");
            assert_eq!(folder.path().read_dir().unwrap().count(), 1, "a file is left over");
        }
    }

    #[test]
    fn a_missing_file_has_nothing_to_drop() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(truncate_after(&folder.path().join("none.jsonl"), 0).unwrap(), 0);
    }

    #[test]
    fn a_damaged_line_is_named_and_the_file_left_alone() {
        for (text, message) in [
            (
                "{\"step\":1}\n{\"step\":2{\"step\":3}\n{\"step\":9}\n",
                "2: expected a JSON object on each line: expected `,` or `}` at line 1 column 10",
            ),
            (
                "[1]\n",
                "1: expected a JSON object on each line: invalid type: sequence, expected a map at \
                 line 1 column 0",
            ),
            ("{\"step\":1.5}\n", "1: expected a whole number as `step`, got 1.5"),
            ("{\"step\":\"7\"}\n", "1: expected a whole number as `step`, got \"7\""),
        ] {
            let (_folder, path) = folder_with(text);
            let error = truncate_after(&path, 1).unwrap_err().to_string();
            assert_eq!(error, format!("{}:{message}", path.display()));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn an_unusable_path_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display();
        let error = MetricsWriter::append(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot open {shown}: ")), "{error}");
        let error = truncate_after(folder.path(), 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot read {shown}: ")), "{error}");
        // The name of the new file is taken by a folder.
        let (_folder, path) = folder_with("{\"step\":5}\n");
        std::fs::create_dir(path.with_added_extension("tmp")).unwrap();
        let error = truncate_after(&path, 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot replace {}: ", path.display())), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":5}\n");
    }
}
