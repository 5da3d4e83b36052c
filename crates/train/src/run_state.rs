//! The state of a run that a checkpoint holds in addition to the tensors.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use moco_checkpoint::Newest;
use serde_json::json;

use crate::error::TrainError;
use crate::identity::{DataOrigin, Origin, RunId};

/// The format of configs, run folders and checkpoints that this release writes, and the newest it reads. It grows
/// when a config has another key, or a checkpoint another tensor or an entry that older programs must not pass
/// over; `config/src/migrate.rs` says what older ones mean.
pub const FORMAT: u32 = 3;

/// Metadata key of the format; checkpoints of format 1 lack it.
const FORMAT_KEY: &str = "format";
/// Metadata key of the resolved config.
const CONFIG: &str = "config";
/// Metadata key of the seconds a run has taken so far.
const WALL_SECONDS: &str = "wall_seconds";
/// Metadata key of the bad samples in the batches that were trained on.
const BAD_SAMPLES: &str = "bad_samples";
/// Metadata key of the algorithms of a GPU's convolutions.
const CONVOLUTIONS: &str = "convolutions";

/// Metadata key of the run's id.
const RUN_ID: &str = "run_id";
/// Metadata keys of the digests of training and test images.
const TRAIN_DATA: &str = "train_data";
const TEST_DATA: &str = "test_data";
/// Metadata key of the run that this one was forked from, as JSON.
const PARENT: &str = "parent";
/// Metadata key of the times that the run was made longer, as JSON; missing if there was none.
const EXTENSIONS: &str = "extensions";

/// The state of a run that a checkpoint holds in addition to the tensors, written and read back as a whole.
///
/// A checkpoint that lacks a value is older than the value: each field says what that means. A value that
/// does not read is an error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunState {
    /// The resolved config; never missing.
    pub(crate) config: String,
    /// Seconds that the run has taken so far; 0 if missing.
    pub(crate) wall_seconds: f64,
    /// Bad samples in the batches that were trained on; 0 if missing, for such a run skipped none.
    pub(crate) n_bad_samples: u64,
    /// The algorithms of a GPU's convolutions, which another process would choose again and perhaps with
    /// other bits; `None` on a CPU and if missing.
    pub(crate) convolutions: Option<String>,
    /// The identity of the run; `None` and empty if missing.
    pub(crate) origin: Origin,
}

impl RunState {
    /// The state in the newest checkpoint of a run.
    ///
    /// # Errors
    /// As [`RunState::from_metadata`], or if a later release wrote it.
    pub(crate) fn of(newest: &Newest) -> Result<Self, TrainError> {
        expect_known_format(&newest.checkpoint.metadata, &newest.path)?;
        Self::from_metadata(&newest.checkpoint.metadata, &newest.path)
    }

    /// The state as a checkpoint's metadata.
    pub(crate) fn to_metadata(&self) -> BTreeMap<String, String> {
        let Self { config, wall_seconds, n_bad_samples, convolutions, origin } = self;
        let Origin { run_id, data: DataOrigin { train, test }, parent, extensions } = origin;
        let optional = [
            (CONVOLUTIONS, convolutions.clone()),
            (RUN_ID, run_id.as_ref().map(ToString::to_string)),
            (TRAIN_DATA, train.clone()),
            (TEST_DATA, test.clone()),
            (PARENT, parent.as_ref().map(|parent| json!(parent).to_string())),
            (EXTENSIONS, (!extensions.is_empty()).then(|| json!(extensions).to_string())),
        ];
        let mut metadata = BTreeMap::from([
            (FORMAT_KEY.to_owned(), FORMAT.to_string()),
            (CONFIG.to_owned(), config.clone()),
            (WALL_SECONDS.to_owned(), wall_seconds.to_string()),
            (BAD_SAMPLES.to_owned(), n_bad_samples.to_string()),
        ]);
        for (key, value) in optional {
            metadata.extend(value.map(|value| (key.to_owned(), value)));
        }
        metadata
    }

    /// The state in a checkpoint's metadata. `path` is for the error.
    ///
    /// # Errors
    /// If there is no config, or a number does not read.
    pub(crate) fn from_metadata(
        metadata: &BTreeMap<String, String>,
        path: &Path,
    ) -> Result<Self, TrainError> {
        let config = metadata.get(CONFIG).cloned().ok_or_else(|| TrainError::Content {
            path: path.to_owned(),
            what: "the metadata lacks `config`; was it written by pretrain?".into(),
        })?;
        Ok(Self {
            config,
            wall_seconds: number(metadata, WALL_SECONDS, "seconds", path)?.unwrap_or(0.0),
            n_bad_samples: number(metadata, BAD_SAMPLES, "a count", path)?.unwrap_or(0),
            convolutions: metadata.get(CONVOLUTIONS).cloned(),
            origin: origin(metadata, path)?,
        })
    }
}

/// The origin in a checkpoint's metadata.
fn origin(metadata: &BTreeMap<String, String>, path: &Path) -> Result<Origin, TrainError> {
    let unfit = |key, expected| unfit(metadata, key, expected, path);
    let run_id = metadata.get(RUN_ID).map(|text| RunId::parse(text));
    if run_id == Some(None) {
        return Err(unfit(RUN_ID, "32 hexadecimal digits"));
    }
    let parent = metadata.get(PARENT).map(|text| serde_json::from_str(text)).transpose();
    let extensions = metadata.get(EXTENSIONS).map(|text| serde_json::from_str(text)).transpose();
    Ok(Origin {
        run_id: run_id.flatten(),
        data: DataOrigin {
            train: metadata.get(TRAIN_DATA).cloned(),
            test: metadata.get(TEST_DATA).cloned(),
        },
        parent: parent.map_err(|_error| unfit(PARENT, "a run, its id and a step as JSON"))?,
        extensions: extensions
            .map_err(|_error| unfit(EXTENSIONS, "numbers of steps as JSON"))?
            .unwrap_or_default(),
    })
}

/// Refuses the metadata of a later release. `path` is for the error.
pub(crate) fn expect_known_format(
    metadata: &BTreeMap<String, String>,
    path: &Path,
) -> Result<(), TrainError> {
    match metadata.get(FORMAT_KEY) {
        Some(found) if found.parse().map_or(true, |number: u32| number > FORMAT) => {
            let (path, found) = (path.to_owned(), found.clone());
            Err(TrainError::TooNew { path, found, supported: FORMAT })
        }
        _ => Ok(()),
    }
}

/// A number of the metadata; `None` if it is missing.
fn number<T: FromStr>(
    metadata: &BTreeMap<String, String>,
    key: &str,
    expected: &str,
    path: &Path,
) -> Result<Option<T>, TrainError> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_error| unfit(metadata, key, expected, path))
}

/// An entry that does not read.
fn unfit(
    metadata: &BTreeMap<String, String>,
    key: &str,
    expected: &str,
    path: &Path,
) -> TrainError {
    let text = metadata.get(key).map_or("", String::as_str);
    let what = format!(
        "`{key}` in the metadata is {text:?}, expected {expected}; \
         remove the file to use the checkpoint before it"
    );
    TrainError::Content { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{Extension, Parent};

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn full_origin() -> Origin {
        let data = DataOrigin { train: Some("3 images".into()), test: Some("2 images".into()) };
        let parent = Parent { run: "first".into(), run_id: None, step: 40 };
        let extension = Extension { at_step: 40, from_steps: 40, to_steps: 60 };
        let run_id = RunId::parse("0123456789abcdef0123456789abcdef");
        Origin { run_id, data, parent: Some(parent), extensions: vec![extension] }
    }

    fn read(pairs: &[(&str, &str)]) -> Result<RunState, String> {
        let read = RunState::from_metadata(&metadata(pairs), Path::new("runs/x.safetensors"));
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn the_record_is_written_and_read_back() {
        for (wall_seconds, n_bad_samples, convolutions) in
            [(12.25, 7, None), (1.0 / 3.0, u64::MAX, Some("conv 1".to_owned()))]
        {
            let config = "seed = 1\n".to_owned();
            let origin = if convolutions.is_some() { full_origin() } else { Origin::default() };
            let state = RunState { config, wall_seconds, n_bad_samples, convolutions, origin };
            let read = RunState::from_metadata(&state.to_metadata(), Path::new("x")).unwrap();
            assert_eq!(read, state);
        }
        let state = RunState {
            config: "seed = 1\n".into(),
            wall_seconds: 2.5,
            n_bad_samples: 3,
            convolutions: Some("algorithms".into()),
            origin: full_origin(),
        };
        let expected = metadata(&[
            ("format", "3"),
            ("config", "seed = 1\n"),
            ("wall_seconds", "2.5"),
            ("bad_samples", "3"),
            ("convolutions", "algorithms"),
            ("run_id", "0123456789abcdef0123456789abcdef"),
            ("train_data", "3 images"),
            ("test_data", "2 images"),
            ("parent", r#"{"run":"first","run_id":null,"step":40}"#),
            ("extensions", r#"[{"at_step":40,"from_steps":40,"to_steps":60}]"#),
        ]);
        assert_eq!(state.to_metadata(), expected);
    }

    #[test]
    fn a_checkpoint_that_is_older_than_a_value_has_its_default() {
        let expected = RunState {
            config: "seed = 1\n".into(),
            wall_seconds: 0.0,
            n_bad_samples: 0,
            convolutions: None,
            origin: Origin::default(),
        };
        assert_eq!(read(&[("config", "seed = 1\n")]), Ok(expected));
    }

    #[test]
    fn what_does_not_read_is_an_error() {
        for (pairs, expected) in [
            (
                &[("wall_seconds", "1")][..],
                "runs/x.safetensors: the metadata lacks `config`; was it written by pretrain?",
            ),
            (
                &[("config", ""), ("wall_seconds", "1 s")],
                "runs/x.safetensors: `wall_seconds` in the metadata is \"1 s\", expected seconds; \
                 remove the file to use the checkpoint before it",
            ),
            (
                &[("config", ""), ("bad_samples", "-1")],
                "runs/x.safetensors: `bad_samples` in the metadata is \"-1\", expected a count; \
                 remove the file to use the checkpoint before it",
            ),
            (
                &[("config", ""), ("run_id", "0123")],
                "runs/x.safetensors: `run_id` in the metadata is \"0123\", expected 32 hexadecimal \
                 digits; remove the file to use the checkpoint before it",
            ),
            (
                &[("config", ""), ("parent", "first")],
                "runs/x.safetensors: `parent` in the metadata is \"first\", expected a run, its id and \
                 a step as JSON; remove the file to use the checkpoint before it",
            ),
        ] {
            assert_eq!(read(pairs), Err(expected.to_owned()));
        }
    }
}
