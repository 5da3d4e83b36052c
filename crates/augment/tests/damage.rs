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
    let start = format!("JPEG image of {} bytes ", good.len());
    let cases = [
        (frame + 5, &[0xff, 0xff, 0xff, 0xff][..], "image of 65535x65535 pixels is too large"),
        (frame + 5, &[0, 0], "is damaged: the frame header has a side of 0"),
        (frame + 4, &[12], "has samples of more than 8 bits, which is not decoded"),
        (frame + 1, &[0xc9], "has lossless, hierarchical or arithmetic coding"),
        (frame + 9, &[2], "has a number of components other than 1, 3 and 4"),
        (frame + 14, &[0x32], "has sampling factors that do not divide one another"),
        (frame + 11, &[0x02], "is damaged: a sampling factor is not from 1 to 4"),
        (table + 1, &[0xfe], "is damaged: a scan needs a quantization table that is not there"),
        (find(&good, 0xc4) + 4, &[0x07], "is damaged: a table of codes has an unknown number"),
    ];
    for (at, bytes, expected) in cases {
        let message = with(at, bytes);
        assert!(message.contains(expected), "{message}");
        assert!(message.starts_with(&start) || message.starts_with("image of"), "{message}");
    }
}
