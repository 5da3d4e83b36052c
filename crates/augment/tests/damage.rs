//! Damaged and hostile JPEG files: what an image that cannot be used is reported as. That none makes the
//! decoder panic is tested in `crates/jpeg`.

use moco_augment::RgbImage;

use crate::jpeg_files::{file, find};

#[test]
fn the_reason_is_named() {
    let message = |bytes: &[u8]| RgbImage::decode(bytes).unwrap_err().to_string();
    let good = file("waves_420");
    let (frame, table) = (find(&good, 0xc0), find(&good, 0xdb));
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        message(&bad)
    };
    let n_bytes = good.len();
    let damaged = |reason: &str| format!("JPEG image of {n_bytes} bytes is damaged: {reason}");
    let unsupported = |feature: &str| {
        format!(
            "JPEG image of {n_bytes} bytes has {feature}, which is not decoded; save it as a baseline or \
             progressive JPEG"
        )
    };
    for (at, bytes, expected) in [
        (frame + 5, &[0, 0][..], damaged("the frame header has a side of 0")),
        (frame + 4, &[12], unsupported("samples of more than 8 bits")),
        (frame + 1, &[0xc9], unsupported("arithmetic coding")),
        (frame + 9, &[2], unsupported("a number of components other than 1, 3 and 4")),
        (frame + 14, &[0x32], unsupported("sampling factors that do not divide one another")),
        (frame + 11, &[0x02], damaged("a sampling factor is not from 1 to 4")),
        (table + 1, &[0xfe], damaged("a scan needs a quantization table that is not there")),
        (find(&good, 0xc4) + 4, &[0x07], damaged("a table of codes has an unknown number")),
    ] {
        assert_eq!(with(at, bytes), expected);
    }
    let message = with(frame + 5, &[0xff; 4]);
    assert!(message.starts_with("image of 65535x65535 pixels is too large: "), "{message}");
}
