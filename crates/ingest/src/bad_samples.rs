//! The policy for images that cannot be used: who they are, how many there may be, and the list of them.
//!
//! Training, evaluations and the tools that read images follow it alike. What is wrong with a shard, a
//! store or a folder as a whole is no bad sample and ends a program in any case.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{bad_sample::BadSample, durable::publish, error::IngestError};

/// The policy for an image that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadSample {
    /// The first one ends the program.
    Fail,
    /// It is left out: in training another image takes its place, elsewhere there is one less.
    Skip {
        /// How many there may be; in training an image counts each time that it is met.
        budget: u64,
    },
}

impl OnBadSample {
    /// How many there may be.
    pub(crate) fn budget(self) -> u64 {
        match self {
            Self::Fail => 0,
            Self::Skip { budget } => budget,
        }
    }
}

/// More bad samples than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget {
    /// How many there may be.
    pub budget: u64,
    /// How many there are, the one that was refused included.
    pub n_bad_samples: u64,
}

/// Bad samples that were met: their count, which a budget bounds, and the list of them, in which each
/// stands once.
#[derive(Debug)]
pub struct BadSamples {
    policy: OnBadSample,
    n_met: u64,
    /// Lines of the list.
    lines: BTreeSet<String>,
    file: Option<PathBuf>,
    is_saved: bool,
}

impl BadSamples {
    /// None so far, and a list in memory only.
    #[must_use]
    pub fn new(policy: OnBadSample) -> Self {
        Self { policy, n_met: 0, lines: BTreeSet::new(), file: None, is_saved: true }
    }

    /// `n_met` so far. The list in `file`, where there is one, is continued by [`save`](Self::save).
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn listed_in(file: &Path, policy: OnBadSample, n_met: u64) -> Result<Self, IngestError> {
        let lines = match fs::read(file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(source) => return Err(IngestError::io("read", file)(source)),
        };
        Ok(Self { policy, n_met, lines, file: Some(file.to_owned()), is_saved: true })
    }

    /// Lists and counts one more, and returns how many there are with it.
    ///
    /// # Errors
    /// If there are more than the policy allows; that one is listed too, and not counted.
    pub fn admit(&mut self, sample: &BadSample) -> Result<u64, OverBudget> {
        self.list(sample);
        let budget = self.policy.budget();
        let n_bad_samples = self.n_met.saturating_add(1);
        if n_bad_samples > budget {
            return Err(OverBudget { budget, n_bad_samples });
        }
        self.n_met = n_bad_samples;
        Ok(n_bad_samples)
    }

    /// Lists one without counting it: the count is that of a run's training, and evaluations meet images again.
    pub fn list(&mut self, sample: &BadSample) {
        let line = format!("{}\t{}", escaped(&sample.path), escaped(&sample.reason));
        if self.lines.insert(line) {
            self.is_saved = false;
        }
    }

    /// How many were met, those before a resume included; an image counts each time.
    #[must_use]
    pub fn n_met(&self) -> u64 {
        self.n_met
    }

    /// Writes the list, where it has a file and has grown: a line for each image, sorted, of its path, a
    /// tab and the reason, with `\` before what would break a line. The file changes as a whole.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&mut self) -> Result<(), IngestError> {
        let (Some(path), false) = (&self.file, self.is_saved) else { return Ok(()) };
        let temporary = path.with_extension("txt.partial");
        let mut file =
            fs::File::create(&temporary).map_err(IngestError::io("create", &temporary))?;
        let text: String = self.lines.iter().flat_map(|line| [line, "\n"]).collect();
        file.write_all(text.as_bytes()).map_err(IngestError::io("write", &temporary))?;
        publish(&file, &temporary, path)?;
        self.is_saved = true;
        Ok(())
    }
}

/// The text without bytes that end a line, separate its parts or move a terminal's cursor.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(path: &str, reason: &str) -> BadSample {
        BadSample { sample_index: 7, path: path.to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn a_budget_bounds_the_count_and_none_is_there_under_fail() {
        let mut samples = BadSamples::new(OnBadSample::Skip { budget: 2 });
        let image = bad("a/1.jpg", "it is cut");
        assert_eq!([samples.admit(&image), samples.admit(&image)], [Ok(1), Ok(2)]);
        let over = OverBudget { budget: 2, n_bad_samples: 3 };
        assert_eq!([samples.admit(&image), samples.admit(&image)], [Err(over), Err(over)]);
        assert_eq!(samples.n_met(), 2);
        let over = OverBudget { budget: 0, n_bad_samples: 1 };
        assert_eq!(BadSamples::new(OnBadSample::Fail).admit(&image), Err(over));
        assert_eq!(image.to_string(), "image a/1.jpg: it is cut");
    }

    #[test]
    fn the_list_has_each_image_once_and_outlives_a_resume() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad_samples.txt");
        let open =
            |n_met| BadSamples::listed_in(&file, OnBadSample::Skip { budget: 9 }, n_met).unwrap();
        let mut samples = open(0);
        samples.save().unwrap();
        assert!(!file.exists(), "there is nothing to list");
        for (path, reason) in [("b", "2"), ("a\tb\n\u{1b}[2J\\ö", "line\r\nbreak"), ("b", "2")] {
            samples.admit(&bad(path, reason)).unwrap();
        }
        samples.save().unwrap();
        let first = "a\\tb\\n\\u{1b}[2J\\\\ö\tline\\r\\nbreak\nb\t2\n";
        assert_eq!(fs::read_to_string(&file).unwrap(), first);
        let mut resumed = open(3);
        assert_eq!(resumed.admit(&bad("aa", "1")), Ok(4));
        assert_eq!(resumed.admit(&bad("b", "2")), Ok(5));
        resumed.save().unwrap();
        let listed = fs::read_to_string(&file).unwrap();
        assert_eq!(listed, first.replace("\nb\t2", "\naa\t1\nb\t2"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_list_that_cannot_be_read_or_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let policy = OnBadSample::Skip { budget: 9 };
        let message = BadSamples::listed_in(folder.path(), policy, 0).unwrap_err().to_string();
        assert_eq!(message, format!("cannot read {}", folder.path().display()));
        let mut lost = BadSamples::listed_in(Path::new("/nowhere/b.txt"), policy, 0).unwrap();
        lost.admit(&bad("a", "b")).unwrap();
        assert_eq!(lost.save().unwrap_err().to_string(), "cannot create /nowhere/b.txt.partial");
    }
}
