//! The bytes of a checkpoint: an ordinary safetensors file whose metadata holds the checksum of the whole
//! file.
//!
//! The checksum is the blake3 hash of the file with the checksum's own 64 digits replaced by zeros. It is
//! the first metadata entry, so its place is known without trusting the header. Against a second file
//! beside the data: there is nothing that could be lost, left over or swapped, the commit is one rename
//! even where a step is saved again, and a copy of the file can be verified anywhere. A hash of
//! only the tensors would miss damage to the header.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{TensorInfo, View};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Serialize;

use crate::error::CheckpointError;

/// Version of the layout that this release writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const METADATA: &str = "__metadata__";
const CHECKSUM: &str = "blake3";
const VERSION: &str = "format_version";
const STEP: &str = "global_step";
/// The bytes between the header's length and the checksum, in each checkpoint.
const PROLOGUE: &[u8] = br#"{"__metadata__":{"blake3":""#;
const DIGITS_AT: usize = 8 + PROLOGUE.len();
const N_DIGITS: usize = 2 * blake3::OUT_LEN;
const ZEROS: [u8; N_DIGITS] = [b'0'; N_DIGITS];

/// A checkpoint whose checksum was found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Optimizer updates done when it was saved.
    pub global_step: u64,
    /// The caller's entries, as they were saved.
    pub metadata: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

impl Checkpoint {
    /// Views of the tensors.
    ///
    /// # Errors
    /// None in practice: the header was parsed when the checkpoint was loaded.
    pub fn tensors(&self) -> Result<SafeTensors<'_>, SafeTensorError> {
        SafeTensors::deserialize(&self.bytes)
    }
}

/// safetensors' own writer puts the metadata in the order of a hash map, so equal states would give
/// different files.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: Metadata<'a>,
    #[serde(flatten)]
    tensors: &'a BTreeMap<String, TensorInfo>,
}

/// The order of the fields is part of the format: see [`PROLOGUE`].
#[derive(Serialize)]
struct Metadata<'a> {
    blake3: &'a str,
    format_version: String,
    global_step: String,
    #[serde(flatten)]
    callers: &'a BTreeMap<String, String>,
}

/// The file's bytes; equal input gives equal bytes.
pub(crate) fn serialize<S: AsRef<str>, V: View>(
    global_step: u64,
    tensors: impl IntoIterator<Item = (S, V)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, CheckpointError> {
    serialize_as(FORMAT_VERSION, global_step, tensors, metadata)
}

fn serialize_as<S: AsRef<str>, V: View>(
    version: u32,
    global_step: u64,
    tensors: impl IntoIterator<Item = (S, V)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, CheckpointError> {
    if let Some(name) = [CHECKSUM, VERSION, STEP].iter().find(|key| metadata.contains_key(**key)) {
        return Err(unsavable(name, &"the key is reserved"));
    }
    let mut tensors: Vec<(S, V)> = tensors.into_iter().collect();
    // Wide types first keeps each tensor aligned to its type, as safetensors' own writer does.
    tensors.sort_by(|(name_a, a), (name_b, b)| {
        b.dtype().cmp(&a.dtype()).then_with(|| name_a.as_ref().cmp(name_b.as_ref()))
    });
    let (infos, n_data_bytes) = lay_out(&tensors)?;

    let (format_version, step) = (version.to_string(), global_step.to_string());
    let digits = String::from_utf8_lossy(&ZEROS);
    let entries =
        Metadata { blake3: &digits, format_version, global_step: step, callers: metadata };
    let header = serde_json::to_string(&Header { metadata: entries, tensors: &infos })
        .map_err(|source| unsavable(METADATA, &source))?;
    let n_header_bytes = header.len().next_multiple_of(8);

    let mut bytes = Vec::with_capacity(8 + n_header_bytes + n_data_bytes);
    bytes.extend((n_header_bytes as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(8 + n_header_bytes, b' ');
    for (_, tensor) in &tensors {
        bytes.extend_from_slice(&tensor.data());
    }
    // A file that could not be read back must not replace an older one that can.
    SafeTensors::deserialize(&bytes).map_err(|source| unsavable("tensors", &source))?;
    let digits = checksum(&bytes);
    bytes[DIGITS_AT..DIGITS_AT + N_DIGITS].copy_from_slice(digits.as_bytes());
    Ok(bytes)
}

fn lay_out<S: AsRef<str>, V: View>(
    tensors: &[(S, V)],
) -> Result<(BTreeMap<String, TensorInfo>, usize), CheckpointError> {
    let mut infos = BTreeMap::new();
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + tensor.data_len();
        let info = TensorInfo {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            data_offsets: (offset, end),
        };
        offset = end;
        let name = name.as_ref();
        if name == METADATA {
            return Err(unsavable(name, &"the name is reserved"));
        }
        if infos.insert(name.to_owned(), info).is_some() {
            return Err(unsavable(name, &"two tensors have this name"));
        }
    }
    Ok((infos, offset))
}

fn unsavable(name: &str, reason: &impl ToString) -> CheckpointError {
    CheckpointError::Unsavable { name: name.to_owned(), reason: reason.to_string() }
}

/// The digits that belong into `bytes`, which are at least `DIGITS_AT + N_DIGITS` long.
fn checksum(bytes: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..DIGITS_AT]);
    hasher.update(&ZEROS);
    hasher.update(&bytes[DIGITS_AT + N_DIGITS..]);
    hasher.finalize().to_hex().to_string()
}

/// Verifies the bytes of the file at `path` and takes them apart.
pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    verify(path, &bytes)?;
    let header = |source| CheckpointError::Header { path: path.to_owned(), source };
    let (_, parsed) = SafeTensors::read_metadata(&bytes).map_err(header)?;
    let entries = parsed.metadata().iter().flatten();
    let mut metadata: BTreeMap<String, String> =
        entries.map(|(key, value)| (key.clone(), value.clone())).collect();

    let version: u32 = take_number(path, &mut metadata, VERSION)?;
    if version > FORMAT_VERSION {
        let supported = FORMAT_VERSION;
        return Err(CheckpointError::TooNew { path: path.to_owned(), found: version, supported });
    }
    let global_step = take_number(path, &mut metadata, STEP)?;
    metadata.remove(CHECKSUM);
    Ok(Checkpoint { global_step, metadata, bytes })
}

fn verify(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let foreign = |expected| CheckpointError::NotACheckpoint { path: path.to_owned(), expected };
    if bytes.get(8..DIGITS_AT) != Some(PROLOGUE) {
        return Err(foreign("a safetensors header that begins with metadata `blake3`"));
    }
    let written = bytes.get(DIGITS_AT..DIGITS_AT + N_DIGITS);
    let written = written.ok_or_else(|| foreign("64 digits of a blake3 checksum"))?;
    let got = checksum(bytes);
    if written != got.as_bytes() {
        let expected = String::from_utf8_lossy(written).into_owned();
        return Err(CheckpointError::Damaged { path: path.to_owned(), expected, got });
    }
    Ok(())
}

fn take_number<T: std::str::FromStr>(
    path: &Path,
    metadata: &mut BTreeMap<String, String>,
    key: &'static str,
) -> Result<T, CheckpointError> {
    let got = metadata.remove(key);
    let number = got.as_deref().and_then(|text| text.parse().ok());
    number.ok_or_else(|| CheckpointError::Metadata { path: path.to_owned(), key, got })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    fn image(version: u32) -> Vec<u8> {
        let data: Vec<u8> = (0..96).collect();
        let bytes = TensorView::new(Dtype::U8, vec![3], &data[..3]).unwrap();
        let weights = TensorView::new(Dtype::F32, vec![2, 3], &data[3..27]).unwrap();
        let metadata = BTreeMap::from([("seed".to_owned(), "7".to_owned())]);
        serialize_as(version, 12, [("mask", bytes), ("fc.weight", weights)], &metadata).unwrap()
    }

    fn read(bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
        parse(Path::new("c.safetensors"), bytes)
    }

    #[test]
    fn a_checkpoint_round_trips() {
        let checkpoint = read(image(FORMAT_VERSION)).unwrap();
        assert_eq!(checkpoint.global_step, 12);
        assert_eq!(checkpoint.metadata, BTreeMap::from([("seed".into(), "7".into())]));
        let tensors = checkpoint.tensors().unwrap();
        let weight = tensors.tensor("fc.weight").unwrap();
        assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[2, 3][..]));
        assert_eq!(weight.data(), (3..27).collect::<Vec<u8>>());
        assert_eq!(tensors.tensor("mask").unwrap().data(), [0, 1, 2]);
    }

    /// `tests/golden/checksum.py` computes the digits in Python from the specification.
    #[test]
    fn equal_states_give_equal_bytes_in_a_fixed_layout() {
        let header = concat!(
            r#"{"__metadata__":{"blake3":"@","format_version":"1","global_step":"12","seed":"7"},"#,
            r#""fc.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"#,
            r#""mask":{"dtype":"U8","shape":[3],"data_offsets":[24,27]}}"#
        );
        let bytes = image(1);
        let n_header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let written = std::str::from_utf8(&bytes[8..8 + n_header_bytes]).unwrap();
        let digits = std::str::from_utf8(&bytes[DIGITS_AT..DIGITS_AT + N_DIGITS]).unwrap();
        assert_eq!(written.trim_end(), header.replace('@', digits));
        assert_eq!(n_header_bytes % 8, 0);
        assert_eq!(digits, GOLDEN_DIGITS);
    }
    const GOLDEN_DIGITS: &str = "55bd3843823fc0f5fcb1ef0e1933b531a3ce0798fbfca2d02ceecdd780c2af43";

    #[test]
    fn a_newer_format_is_refused_by_version() {
        let error = read(image(FORMAT_VERSION + 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "c.safetensors has format version 2, this program reads up to 1; \
             use the release that wrote it"
        );
    }

    #[test]
    fn foreign_files_are_named_as_such() {
        let bytes = safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
        let error = read(bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "c.safetensors is not a checkpoint of this program: \
             expected a safetensors header that begins with metadata `blake3`"
        );
    }

    #[test]
    fn what_cannot_be_saved_is_refused_before_writing() {
        let byte = || TensorView::new(Dtype::U8, vec![1], &[1]).unwrap();
        let none = BTreeMap::new();
        let reserved = BTreeMap::from([("global_step".to_owned(), String::new())]);
        for (tensors, metadata, expected) in [
            (
                vec![("a", byte()), ("a", byte())],
                &none,
                "cannot save `a` in a checkpoint: two tensors have this name",
            ),
            (
                vec![("__metadata__", byte())],
                &none,
                "cannot save `__metadata__` in a checkpoint: the name is reserved",
            ),
            (vec![], &reserved, "cannot save `global_step` in a checkpoint: the key is reserved"),
        ] {
            let error = serialize(1, tensors, metadata).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    /// Not even a right checksum hides what a program that writes checkpoints otherwise left out.
    #[test]
    fn a_checkpoint_without_its_step_or_its_header_is_named() {
        let change = |from: &str, to: &str| {
            let mut bytes = image(FORMAT_VERSION);
            let at =
                bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            let digits = checksum(&bytes);
            bytes[DIGITS_AT..DIGITS_AT + N_DIGITS].copy_from_slice(digits.as_bytes());
            read(bytes).unwrap_err().to_string()
        };
        assert_eq!(
            change("global_step", "globel_step"),
            "c.safetensors: expected a whole number in metadata `global_step`, got None"
        );
        assert_eq!(
            change("\"shape\":[3]", "\"shape\":[9]"),
            "the header of c.safetensors is invalid"
        );
    }

    #[test]
    fn every_truncation_and_every_bit_flip_is_detected() {
        let bytes = image(FORMAT_VERSION);
        for len in 0..bytes.len() {
            assert!(read(bytes[..len].to_vec()).is_err(), "cut to {len} bytes");
        }
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(flipped).is_err(), "bit {bit} flipped");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, keep in 0_usize..DIGITS_AT + 90) {
            let mut start = image(FORMAT_VERSION)[..keep].to_vec();
            start.append(&mut bytes);
            prop_assert!(read(start).is_err());
        }

        #[test]
        fn any_metadata_round_trips(entries: BTreeMap<String, String>, global_step: u64) {
            let none = Vec::<(&str, TensorView<'_>)>::new();
            let reserved = [CHECKSUM, VERSION, STEP];
            prop_assume!(!entries.keys().any(|key| reserved.contains(&key.as_str())));
            let checkpoint = read(serialize(global_step, none, &entries).unwrap()).unwrap();
            prop_assert_eq!((checkpoint.global_step, checkpoint.metadata), (global_step, entries));
        }
    }
}
