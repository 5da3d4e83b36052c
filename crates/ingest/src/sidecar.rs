//! The metadata of a sample: the rules that whoever writes it and whoever reads it share.

use serde_json::Value;

/// Metadata of one sample; hashtags and a caption are far shorter.
pub(crate) const JSON_BYTES_MAX: u64 = 1 << 20;

/// Whether a shard can hold this as the metadata of a sample: at most 1 MiB of JSON.
///
/// # Errors
/// The reason why not, in words.
pub fn check_metadata(json: &[u8]) -> Result<(), String> {
    parse(json, json.len() as u64).map(drop)
}

/// The metadata, of which `n_bytes` are there; the bytes may be cut at one over the limit.
pub(crate) fn parse(json: &[u8], n_bytes: u64) -> Result<Value, String> {
    if n_bytes > JSON_BYTES_MAX {
        return Err(format!("it has {n_bytes} bytes, the limit is {JSON_BYTES_MAX}"));
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// The label in `{"label": 3}` or `{"cls": 3}`, or what stands there in its place; JSON with neither key
/// has none.
pub(crate) fn label(metadata: &Value) -> Option<Result<u32, String>> {
    let value = metadata.get("label").or_else(|| metadata.get("cls"))?;
    let label = value.as_u64().and_then(|label| u32::try_from(label).ok());
    Some(label.ok_or_else(|| value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_reader_accepts_is_refused() {
        let large = format!("\"{}\"", "a".repeat(JSON_BYTES_MAX as usize - 2));
        for fit in ["{}", "[1]", "null", large.as_str()] {
            assert_eq!(check_metadata(fit.as_bytes()), Ok(()));
        }
        let larger = large.replacen('a', "aa", 1);
        for (unfit, expected) in [
            (larger.as_str(), "it has 1048577 bytes, the limit is 1048576"),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("\u{feff}{}", "expected value at line 1 column 1"),
            ("{\"caption\": NaN}", "expected value at line 1 column 13"),
            ("{} x", "trailing characters at line 1 column 4"),
        ] {
            assert_eq!(check_metadata(unfit.as_bytes()), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_label_is_a_number_under_one_of_two_keys() {
        for (json, expected) in [
            ("{\"label\": 1, \"cls\": 2}", Some(Ok(1))),
            ("{\"cls\": 2}", Some(Ok(2))),
            ("{\"label\": \"cat\"}", Some(Err("\"cat\"".to_owned()))),
            ("{\"label\": -1}", Some(Err("-1".to_owned()))),
            ("{\"label\": 4294967296}", Some(Err("4294967296".to_owned()))),
            ("{\"caption\": \"a cat\"}", None),
            ("[{\"label\": 1}]", None),
        ] {
            assert_eq!(label(&serde_json::from_str(json).unwrap()), expected, "{json}");
        }
    }
}
