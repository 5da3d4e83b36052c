//! The JPEG files that Pillow's pictures are stored with (`crates/augment/tests/golden/generate.py`).

use serde_json::Value;

const JSON: &str = include_str!("../crates/augment/tests/golden/views.json");
const BLOB: &[u8] = include_bytes!("../crates/augment/tests/golden/views.bin");

/// The file of this name: `waves_420`, `waves_progressive`, `waves_restart`, `gray`, …
pub(crate) fn file(name: &str) -> Vec<u8> {
    let golden: Value = serde_json::from_str(JSON).unwrap();
    let case = golden["jpeg"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let [offset, length] =
        [0, 1].map(|i| usize::try_from(case["file"][i].as_u64().unwrap()).unwrap());
    BLOB[offset..offset + length].to_vec()
}

/// Where the segment of this marker begins.
pub(crate) fn find(file: &[u8], marker: u8) -> usize {
    let mut at = 2;
    while file[at + 1] != marker {
        at += 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
    }
    at
}
