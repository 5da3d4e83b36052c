//! Which side of a picture is up, by the tag that cameras write.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::{AugmentError, RgbImage};

/// The use that is made of the orientation tag in the EXIF data of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exif {
    /// None: the picture as its pixels lie, as Pillow opens it and torchvision's `ImageFolder` trains on it.
    Ignore,
    /// The picture is turned as a viewer shows it, as Pillow's `exif_transpose` does.
    Apply,
}

/// What the tag of a file says; that of a file without one, or with one that does not read, says nothing.
#[must_use]
pub fn exif_orientation(bytes: &[u8]) -> Option<u8> {
    let orientation = match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => Orientation::from_exif_chunk(jpeg_exif(bytes)?)?,
        format => {
            let reader = ImageReader::with_format(Cursor::new(bytes), format);
            reader.into_decoder().ok()?.orientation().ok()?
        }
    };
    (orientation != Orientation::NoTransforms).then(|| orientation.to_exif())
}

/// The picture of a file, turned as the file's tag says.
pub(crate) fn turned(picture: RgbImage, bytes: &[u8]) -> Result<RgbImage, AugmentError> {
    let Some(orientation) = exif_orientation(bytes).and_then(Orientation::from_exif) else {
        return Ok(picture);
    };
    let (width, height) = (picture.width(), picture.height());
    let Some(pixels) = image::RgbImage::from_raw(width, height, picture.into_pixels()) else {
        return Err(AugmentError::NoPixels { width, height });
    };
    let mut pixels = DynamicImage::ImageRgb8(pixels);
    pixels.apply_orientation(orientation);
    RgbImage::new(pixels.width(), pixels.height(), pixels.into_rgb8().into_raw())
}

/// The EXIF data of a JPEG: the first segment APP1 that says so, before the picture begins.
fn jpeg_exif(bytes: &[u8]) -> Option<&[u8]> {
    const APP1: u8 = 0xe1;
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    loop {
        // A marker may be filled up with bytes of 0xff.
        while bytes.get(at..at + 2)? == [0xff, 0xff] {
            at += 1;
        }
        let [0xff, marker, high, low] = *bytes.get(at..at + 4)? else { return None };
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let body = bytes.get(at + 4..end)?;
        match (marker, body.strip_prefix(b"Exif\0\0")) {
            (APP1, Some(exif)) => return Some(exif),
            (START_OF_SCAN, _) => return None,
            _ => at = end,
        }
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    /// EXIF data with this orientation, as little-endian TIFF with one entry.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    /// A gray picture of 3x2 pixels whose six values differ.
    fn png(orientation: u8) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(&[1, 2, 3, 4, 5, 6], 3, 2, ExtendedColorType::L8).unwrap();
        file
    }

    fn jpeg(orientation: u8) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut file, 100);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(&[0, 50, 100, 150, 200, 250], 3, 2, ExtendedColorType::L8).unwrap();
        file
    }

    /// The meaning of the tag by the EXIF standard: where the row 0 and the column 0 are seen.
    #[test]
    fn each_orientation_turns_the_picture_as_the_standard_says() {
        for (orientation, size, expected) in [
            (1, (3, 2), [1, 2, 3, 4, 5, 6]),
            (2, (3, 2), [3, 2, 1, 6, 5, 4]),
            (3, (3, 2), [6, 5, 4, 3, 2, 1]),
            (4, (3, 2), [4, 5, 6, 1, 2, 3]),
            (5, (2, 3), [1, 4, 2, 5, 3, 6]),
            (6, (2, 3), [4, 1, 5, 2, 6, 3]),
            (7, (2, 3), [6, 3, 5, 2, 4, 1]),
            (8, (2, 3), [3, 6, 2, 5, 1, 4]),
            (9, (3, 2), [1, 2, 3, 4, 5, 6]),
        ] {
            let file = png(orientation);
            let seen = RgbImage::decode_as(&file, Exif::Apply).unwrap();
            let grays: Vec<u8> = seen.pixels().chunks(3).map(|rgb| rgb[0]).collect();
            assert_eq!(((seen.width(), seen.height()), grays.as_slice()), (size, &expected[..]));
            let ignored = RgbImage::decode_as(&file, Exif::Ignore).unwrap();
            assert_eq!(ignored, RgbImage::decode(&file).unwrap());
            assert_eq!((ignored.width(), ignored.pixels()[0]), (3, 1));
            let tag = (2..=8).contains(&orientation).then_some(orientation);
            assert_eq!([exif_orientation(&file), exif_orientation(&jpeg(orientation))], [tag; 2]);
        }
    }

    #[test]
    fn a_jpeg_is_turned_and_one_without_a_tag_is_not() {
        let upright = RgbImage::decode(&jpeg(1)).unwrap();
        let turned = RgbImage::decode_as(&jpeg(3), Exif::Apply).unwrap();
        let reversed: Vec<u8> = upright.pixels().chunks(3).rev().flatten().copied().collect();
        assert_eq!(turned.pixels(), reversed);
        let file = jpeg(6);
        for end in 0..file.len() {
            // Whatever is cut off, there is no panic; the tag is found as soon as its segment is whole.
            let whole = file.windows(4).position(|bytes| bytes == b"Exif").unwrap() + 6 + 26;
            let expected = (end >= whole).then_some(6);
            assert_eq!(exif_orientation(&file[..end]), expected, "{end}");
        }
    }
}
