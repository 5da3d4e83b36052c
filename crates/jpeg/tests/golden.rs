//! Whole pictures and regions against Pillow 12.3.0: the files that `augment` compares its views with
//! (`crates/augment/tests/golden/generate.py`), byte for byte.
#![expect(clippy::unwrap_used, reason = "a broken golden file must stop the test")]

use moco_jpeg::{BelowRegion, Region, decode, read_header};
use serde_json::Value;

const JSON: &str = include_str!("../../augment/tests/golden/views.json");
const BLOB: &[u8] = include_bytes!("../../augment/tests/golden/views.bin");

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn blob(range: &Value) -> &'static [u8] {
    let [offset, length] = [0, 1].map(|i| number(&range[i]) as usize);
    &BLOB[offset..][..length]
}

/// Each file with the pixels that Pillow makes of it.
fn cases() -> Vec<(String, &'static [u8], &'static [u8])> {
    let golden: Value = serde_json::from_str(JSON).unwrap();
    let cases = golden["jpeg"].as_array().unwrap().iter();
    let name = |case: &Value| case["name"].as_str().unwrap().to_owned();
    cases.map(|case| (name(case), blob(&case["file"]), blob(&case["rgb"]))).collect()
}

#[test]
fn files_of_every_kind_and_sampling_are_exact() {
    assert!(cases().len() >= 10);
    for (name, file, expected) in cases() {
        let jpeg = read_header(file).unwrap();
        let whole = Region::whole(jpeg.width, jpeg.height);
        assert_eq!(decode(jpeg, whole, BelowRegion::Read).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_region_is_a_part_of_the_picture() {
    for (name, file, whole) in cases() {
        let jpeg = read_header(file).unwrap();
        let (width, height) = (jpeg.width, jpeg.height);
        let corners = [(0, 0, height, width), (height - 1, width - 1, 1, 1), (0, width / 2, 1, 1)];
        let middle = (height / 3, width / 4, height.div_ceil(3), width.div_ceil(2));
        for (top, left, rows, columns) in corners.into_iter().chain([middle]) {
            let region = Region { top, left, height: rows, width: columns };
            let expected: Vec<u8> = (top..top + rows)
                .flat_map(|y| {
                    let start = 3 * (y * width + left) as usize;
                    whole[start..start + 3 * columns as usize].to_vec()
                })
                .collect();
            for below in [BelowRegion::Read, BelowRegion::Skip] {
                let pixels = decode(read_header(file).unwrap(), region, below).unwrap();
                assert_eq!(pixels, expected, "{name} {region:?} {below:?}");
            }
        }
    }
}
