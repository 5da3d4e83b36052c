//! What distinguishes a run from every other one: its id, its data and what it came from.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::{OnFile, TrainError};
use crate::sources::Sources;
use crate::summary::{Extension, Parent};

const N_BYTES: usize = 16;

/// The id of a run: 32 random hexadecimal digits, drawn once from the operating system. Nothing in a run
/// depends on its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// An id that no other run has.
    pub(crate) fn random() -> Result<Self, TrainError> {
        let (path, mut bytes) = (Path::new("/dev/urandom"), [0_u8; N_BYTES]);
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
        read.on_file("read random bytes from", path)?;
        let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(digits))
    }

    /// An id as it is displayed; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_id = text.len() == 2 * N_BYTES && text.bytes().all(is_digit);
        is_id.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The origin of a run, which each of its checkpoints holds; what older programs did not write is missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Origin {
    pub(crate) run_id: Option<RunId>,
    pub(crate) data: DataOrigin,
    /// The run whose encoders and queue it began with.
    pub(crate) parent: Option<Parent>,
    /// Each time it was made longer.
    pub(crate) extensions: Vec<Extension>,
}

/// The digests of a run's images, as they are displayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DataOrigin {
    pub(crate) train: Option<String>,
    pub(crate) test: Option<String>,
}

impl DataOrigin {
    pub(crate) fn of(sources: &Sources) -> Self {
        let train = sources.train.digest().map(|digest| digest.to_string());
        let test = sources.labeled.as_ref().and_then(|labeled| labeled.test.digest());
        Self { train, test: test.map(|digest| digest.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_digits_that_differ() {
        let [a, b] = [(); 2].map(|()| RunId::random().unwrap());
        assert_ne!(a, b);
        assert_eq!(RunId::parse(&a.to_string()), Some(a));
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(RunId::parse(digits).is_some());
        for wrong in ["", &digits[1..], &digits.to_uppercase(), &format!("{digits}0"), "\0"] {
            assert_eq!(RunId::parse(wrong), None, "{wrong:?}");
        }
    }
}
