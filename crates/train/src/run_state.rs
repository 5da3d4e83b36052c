//! The state of a run that a checkpoint holds in addition to the tensors.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use crate::error::TrainError;

/// The format of configs, run folders and checkpoints that this release writes, and the newest it reads. It grows
/// when a config has another key, or a checkpoint another tensor or entry, than older programs wrote;
/// `config/src/migrate.rs` says what older ones mean.
pub const FORMAT: u32 = 2;

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
}

impl RunState {
    /// The state as a checkpoint's metadata.
    pub(crate) fn to_metadata(&self) -> BTreeMap<String, String> {
        let Self { config, wall_seconds, n_bad_samples, convolutions } = self;
        let mut metadata = BTreeMap::from([
            (FORMAT_KEY.to_owned(), FORMAT.to_string()),
            (CONFIG.to_owned(), config.clone()),
            (WALL_SECONDS.to_owned(), wall_seconds.to_string()),
            (BAD_SAMPLES.to_owned(), n_bad_samples.to_string()),
        ]);
        metadata.extend(convolutions.clone().map(|choices| (CONVOLUTIONS.to_owned(), choices)));
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
        })
    }
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
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            let what = format!(
                "`{key}` in the metadata is {text:?}, expected {expected}; \
                 remove the file to use the checkpoint before it"
            );
            Err(TrainError::Content { path: path.to_owned(), what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
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
            let state = RunState { config, wall_seconds, n_bad_samples, convolutions };
            let read = RunState::from_metadata(&state.to_metadata(), Path::new("x")).unwrap();
            assert_eq!(read, state);
        }
        let state = RunState {
            config: "seed = 1\n".into(),
            wall_seconds: 2.5,
            n_bad_samples: 3,
            convolutions: Some("algorithms".into()),
        };
        let expected = metadata(&[
            ("format", "2"),
            ("config", "seed = 1\n"),
            ("wall_seconds", "2.5"),
            ("bad_samples", "3"),
            ("convolutions", "algorithms"),
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
        ] {
            assert_eq!(read(pairs), Err(expected.to_owned()));
        }
    }
}
