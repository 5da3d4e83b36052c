//! The one thing in a segment of Exif that a picture is refused for.

/// The horizontal resolution.
const RESOLUTION: u16 = 0x011a;
/// Types whose values are bytes or a text.
const BYTES: u16 = 1;
const TEXT: u16 = 2;
const UNDEFINED: u16 = 7;

/// Whether Pillow reads the resolution of a segment as a number: it takes one or two bytes, or a text as short,
/// for a fraction, and refuses the file. Whatever else is wrong in the segment it ignores.
pub(crate) fn has_readable_resolution(body: &[u8]) -> bool {
    resolution(body).is_none_or(|(kind, n)| !matches!(kind, BYTES | TEXT | UNDEFINED) || n > 2)
}

/// Type and number of values of the resolution, if there is one.
fn resolution(body: &[u8]) -> Option<(u16, u32)> {
    let tiff = body.strip_prefix(b"Exif\0\0")?;
    let is_little = tiff.starts_with(b"II");
    let short = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = directory.checked_add(2)?;
    (0..usize::from(short(directory)?)).find_map(|i| {
        let entry = entries.checked_add(12 * i)?;
        (short(entry)? == RESOLUTION).then_some((short(entry + 2)?, long(entry + 4)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Pillow 12.3.0 makes of resolutions of each type and number.
    #[test]
    fn short_texts_and_bytes_are_no_resolution() {
        for (kind, n, expected) in [
            (1, 1, false),
            (2, 1, false),
            (2, 2, false),
            (7, 1, false),
            (3, 1, true),
            (5, 1, true),
            (7, 3, true),
        ] {
            for order in [b"II", b"MM"] {
                let pair = |x: u16| if order == b"II" { x.to_le_bytes() } else { x.to_be_bytes() };
                let four = |x: u32| if order == b"II" { x.to_le_bytes() } else { x.to_be_bytes() };
                let mut body = [b"Exif\0\0", &order[..], &pair(42), &four(8), &pair(1)].concat();
                body.extend([pair(RESOLUTION), pair(kind)].concat());
                body.extend([four(n), [55, 0, 0, 0]].concat());
                assert_eq!(has_readable_resolution(&body), expected, "{kind} {n}");
                assert!(has_readable_resolution(&body[..20]));
            }
        }
    }
}
