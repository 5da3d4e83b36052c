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

/// The outcome of [`truncate_after`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truncated {
    /// Lines dropped for their step, and an incomplete last one.
    pub n_dropped: usize,
    /// Numbers, from 1, of complete lines that were no JSON object with a whole number as step, and of which
    /// nothing can be read; dropped too.
    pub damaged: Vec<usize>,
}

/// Drops every line whose `step` is greater than `global_step`, an incomplete last line and damaged lines, so
/// that the curve of a run resumed there has no step twice and every reader can read it.
///
/// A line without `step` stays. The file is replaced as a whole and durably, or not touched if there is
/// nothing to drop; a missing file has nothing to drop.
///
/// # Errors
/// The file cannot be read or replaced.
pub fn truncate_after(path: &Path, global_step: u64) -> Result<Truncated, TelemetryError> {
    let mut truncated = Truncated::default();
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(truncated),
        Err(error) => return Err(TelemetryError::io("read", path)(error)),
    };
    let mut kept = Vec::with_capacity(text.len());
    for (line, number) in text.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        match step_of(line) {
            _ if !line.ends_with(b"\n") => truncated.n_dropped += 1,
            Step::Unreadable => truncated.damaged.push(number),
            Step::Done(step) if step > global_step => truncated.n_dropped += 1,
            Step::Done(_) | Step::None => kept.extend_from_slice(line),
        }
    }
    if kept.len() < text.len() {
        replace(path, &kept).map_err(TelemetryError::io("replace", path))?;
    }
    Ok(truncated)
}

/// The step in a line.
enum Step {
    Done(u64),
    /// A line about something else.
    None,
    Unreadable,
}

fn step_of(line: &[u8]) -> Step {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(line) else {
        return Step::Unreadable;
    };
    match object.get("step") {
        None => Step::None,
        Some(step) => step.as_u64().map_or(Step::Unreadable, Step::Done),
    }
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
            let dropped = |n_dropped| Truncated { n_dropped, damaged: Vec::new() };
            assert_eq!(truncate_after(&path, global_step).unwrap(), dropped(n_dropped), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept, "{text}");
            assert_eq!(truncate_after(&path, global_step).unwrap(), dropped(0), "twice: {text}");
            assert_eq!(folder.path().read_dir().unwrap().count(), 1, "a file is left over");
        }
    }

    #[test]
    fn a_missing_file_has_nothing_to_drop() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.jsonl");
        assert_eq!(truncate_after(&missing, 0).unwrap(), Truncated::default());
    }

    #[test]
    fn damaged_lines_are_counted_and_dropped() {
        let (one, two) = ("{\"step\":1}\n", "{\"step\":2}\n");
        for damaged in [
            "{\"step\":2{\"step\":3}\n",
            "[1]\n",
            "\n",
            "{\"step\":1.5}\n",
            "{\"step\":\"7\"}\n",
            "\0\0\0\0\n",
        ] {
            let text = [one, damaged, two, damaged, "{\"step\":9}\n", "{\"st"].concat();
            let (_folder, path) = folder_with(&text);
            let expected = Truncated { n_dropped: 2, damaged: vec![2, 4] };
            assert_eq!(truncate_after(&path, 2).unwrap(), expected, "{damaged:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), [one, two].concat());
        }
        // A line of bytes that are no text.
        let (_folder, path) = folder_with(one);
        std::fs::write(&path, b"\xff\xfe\n{\"step\":1}\n").unwrap();
        assert_eq!(truncate_after(&path, 2).unwrap().damaged, [1]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), one);
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
