//! Segments of JPEG files that hold no part of the picture, and bytes between segments.

use crate::dice::Dice;

/// Appends a segment, sometimes with fill bytes before its marker.
pub(crate) fn segment(dice: &mut Dice, file: &mut Vec<u8>, marker: u8, body: &[u8]) {
    fill(dice, file);
    file.extend([0xff, marker]);
    file.extend(u16::try_from(body.len() + 2).unwrap_or(u16::MAX).to_be_bytes());
    file.extend(body);
}

/// Fill bytes, which may come before any marker.
pub(crate) fn fill(dice: &mut Dice, file: &mut Vec<u8>) {
    if dice.percent(3) {
        let n = 1 + dice.below(4);
        file.extend(std::iter::repeat_n(0xff, n));
    }
}

/// Sometimes a comment, or a segment that nobody reads.
pub(crate) fn maybe_comment(dice: &mut Dice, file: &mut Vec<u8>) {
    if dice.percent(12) {
        let marker = dice.pick(&[0xfe, 0xe3, 0xe5, 0xec, 0xef]);
        let n = dice.below(60);
        let body = dice.bytes(n);
        segment(dice, file, marker, &body);
    }
}

/// Segments of applications in any order; those of JFIF and Adobe say what the colors are.
pub(crate) fn applications(dice: &mut Dice, file: &mut Vec<u8>, n_components: usize) {
    let mut segments = Vec::new();
    if dice.percent(45) {
        segments.push((0xe0, jfif(dice)));
    }
    if dice.percent(if n_components == 1 { 5 } else { 35 }) {
        let transform = dice.pick(&[0, 0, 1, 1, 2, 2, 7]);
        segments.push((0xee, [&b"Adobe\0\x64\0\0\0\0"[..], &[transform]].concat()));
    }
    if dice.percent(12) {
        segments.push((0xe1, exif(dice)));
    }
    if dice.percent(6) {
        let n = dice.below(80);
        segments.push((0xe2, [&b"ICC_PROFILE\0\x01\x01"[..], &dice.bytes(n)].concat()));
    }
    if dice.percent(5) {
        segments.push((0xe1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>".to_vec()));
    }
    if dice.percent(5) {
        let body = b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0\x48\0\0\0\x01\0\x01\0\x48\0\0\0\x01\0\x01";
        segments.push((0xed, body.to_vec()));
    }
    if dice.percent(10) {
        let n = dice.below(100);
        segments.push((dice.pick(&[0xe0, 0xe4, 0xe9, 0xee, 0xfe]), dice.bytes(n)));
    }
    if dice.percent(30) {
        dice.shuffle(&mut segments);
    }
    for (marker, body) in segments {
        segment(dice, file, marker, &body);
    }
}

/// With a thumbnail now and then.
fn jfif(dice: &mut Dice) -> Vec<u8> {
    let (unit, density) = (dice.pick(&[0, 0, 1, 2]), dice.byte());
    let side = if dice.percent(15) { 2 } else { 0 };
    let head = [0x4a, 0x46, 0x49, 0x46, 0, 1, dice.pick(&[1, 2]), unit, 0, density, 0, density];
    let n = 3 * usize::from(side) * usize::from(side);
    [&head[..], &[side, side], &dice.bytes(n)].concat()
}

/// An orientation, which is ignored, and now and then a resolution, which Pillow reads.
fn exif(dice: &mut Dice) -> Vec<u8> {
    let orientation = [0x12, 1, 3, 0, 1, 0, 0, 0, 1 + dice.byte() % 8, 0, 0, 0];
    if dice.percent(50) {
        return [&b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0"[..], &orientation, &[0; 4]].concat();
    }
    let resolution = [0x1a, 1, 5, 0, 1, 0, 0, 0, 50, 0, 0, 0];
    let unit = [0x28, 1, 3, 0, 1, 0, 0, 0, 2, 0, 0, 0];
    let value = [72, 0, 0, 0, 1, 0, 0, 0];
    [&b"Exif\0\0II\x2a\0\x08\0\0\0\x03\0"[..], &orientation, &resolution, &unit, &[0; 4], &value]
        .concat()
}
