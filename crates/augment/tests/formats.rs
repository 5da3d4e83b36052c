//! WebP, BMP, TIFF and GIF files against Pillow 12.3.0 (`golden/formats/generate.py`).
//!
//! All samples are equal but for the cases listed, whose largest difference was measured.

use moco_augment::RgbImage;
use serde_json::Value;

const JSON: &str = include_str!("golden/formats/formats.json");
const BLOB: &[u8] = include_bytes!("golden/formats/formats.bin");

/// The largest difference of a sample, where there is one: JPEG within TIFF, and the screen of a GIF around
/// a first picture that does not fill it.
const DIFFERENCES: [(&str, u8); 2] = [("tiff-jpeg", 1), ("gif-part", 212)];
/// Refused, with the reason.
const REFUSED: [(&str, &str); 1] =
    [("tiff-palette", "RGBPalette with bits per sample [8] is unsupported")];

fn blob(range: &Value) -> &'static [u8] {
    let [offset, length] = [0, 1].map(|i| usize::try_from(range[i].as_u64().unwrap()).unwrap());
    &BLOB[offset..][..length]
}

#[test]
fn decoded_files_are_pillow_s() {
    let golden: Value = serde_json::from_str(JSON).unwrap();
    assert_eq!(golden["versions"]["pillow"], "12.3.0");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 30, "{}", cases.len());
    let (mut found, mut n_refused) = (Vec::new(), 0);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let image = match RgbImage::decode(blob(&case["file"])) {
            Ok(image) => image,
            Err(error) => {
                let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
                let (_, reason) = refused.unwrap_or_else(|| panic!("{name}: {error:?}"));
                assert!(format!("{error:?}").contains(reason), "{name}: {error:?}");
                n_refused += 1;
                continue;
            }
        };
        let size = [image.width(), image.height()].map(u64::from);
        assert_eq!(case["size"], serde_json::json!(size), "{name}");
        let pairs = image.pixels().iter().zip(blob(&case["pixels"]));
        let difference = pairs.map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap();
        if difference > 0 {
            found.push((name, difference));
        }
    }
    assert_eq!((found.as_slice(), n_refused), (&DIFFERENCES[..], REFUSED.len()));
}
