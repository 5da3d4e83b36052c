//! Whether the bytes of an image file reach the end of its picture.
//!
//! Only the outer structure is walked; the decoder judges what lies inside.

use image::ImageFormat;

/// False if the file breaks off. Bytes after the end are fine; cameras and download tools append some.
pub(crate) fn has_end(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        // A file broken off just behind this pair is one in 65536, so the common case needs no walk.
        ImageFormat::Jpeg => {
            bytes.ends_with(&[0xff, END_OF_IMAGE]) || jpeg_has_end(bytes).is_some()
        }
        _ => png_has_end(bytes).is_some(),
    }
}

const END_OF_IMAGE: u8 = 0xd9;

/// Walks the segments. A search for the end marker alone would find the one of an embedded thumbnail.
fn jpeg_has_end(bytes: &[u8]) -> Option<()> {
    let mut at = 2;
    loop {
        // Between segments and inside entropy-coded data alike, a marker is the next FF that is followed
        // by neither a stuffed 00, a restart marker, nor another FF.
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)? + 1;
        match *bytes.get(at)? {
            END_OF_IMAGE => return Some(()),
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
            0xff => {}
            _ => {
                let length = bytes.get(at + 1..at + 3)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

/// Walks the chunks.
fn png_has_end(bytes: &[u8]) -> Option<()> {
    let mut at = 8;
    loop {
        let chunk = bytes.get(at..at + 8)?;
        let length = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let end = at.checked_add(12)?.checked_add(usize::try_from(length).ok()?)?;
        if bytes.len() < end {
            return None;
        }
        if &chunk[4..8] == b"IEND" {
            return Some(());
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_thumbnail_does_not_count() {
        let start: &[u8] = &[0xff, 0xd8];
        let thumbnail: &[u8] = &[0xff, 0xe1, 0, 8, 0xff, 0xd8, 1, 2, 0xff, 0xd9];
        let scan: &[u8] = &[0xff, 0xda, 0, 3, 9, 1, 0xff, 0x00, 0xff, 0xd3, 7, 0xff, 0xff];
        let end: &[u8] = &[0xff, 0xd9];
        let cases: [(Vec<u8>, bool); 6] = [
            ([start, thumbnail, scan, end].concat(), true),
            ([start, thumbnail, scan, end, &[0, 0]].concat(), true),
            ([start, thumbnail, scan].concat(), false),
            ([start, thumbnail, &[0]].concat(), false),
            ([start, &[0xff]].concat(), false),
            ([start, &[0xff, 0xe1, 0xff]].concat(), false),
        ];
        for (bytes, expected) in cases {
            assert_eq!(has_end(ImageFormat::Jpeg, &bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_png_ends_with_its_last_chunk_complete() {
        let mut png = vec![0; 8];
        png.extend_from_slice(&[0, 0, 0, 2, b't', b'E', b'X', b't', 1, 2, 0, 0, 0, 0]);
        png.extend_from_slice(&[0, 0, 0, 0, b'I', b'E', b'N', b'D', 0, 0, 0, 0]);
        assert!(has_end(ImageFormat::Png, &png));
        assert!((8..png.len()).all(|end| !has_end(ImageFormat::Png, &png[..end])));
        png[8] = 0xff;
        assert!(!has_end(ImageFormat::Png, &png));
    }
}
