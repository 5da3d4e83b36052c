//! Whether the bytes of a PNG file reach the end of its picture.
//!
//! Only the outer structure is walked; the decoder judges what is inside.

/// False if the file breaks off. Bytes after the end are fine; cameras and download tools append some.
pub(crate) fn has_end(png: &[u8]) -> bool {
    end(png).is_some()
}

/// Walks the chunks.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 8;
    loop {
        let chunk = bytes.get(at..at + 8)?;
        let length = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let end = at.checked_add(12)?.checked_add(usize::try_from(length).ok()?)?;
        if bytes.len() < end {
            return None;
        }
        if &chunk[4..8] == b"IEND" {
            return Some(end);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_ends_with_its_last_chunk_complete() {
        let mut png = vec![0; 8];
        png.extend_from_slice(&[0, 0, 0, 2, b't', b'E', b'X', b't', 1, 2, 0, 0, 0, 0]);
        png.extend_from_slice(&[0, 0, 0, 0, b'I', b'E', b'N', b'D', 0, 0, 0, 0]);
        assert!(has_end(&png));
        assert!((8..png.len()).all(|end| !has_end(&png[..end])));
        png[8] = 0xff;
        assert!(!has_end(&png));
    }
}
