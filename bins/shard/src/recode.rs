//! Images as they go into shards: decoded as the trainer decodes them, and smaller where training needs
//! fewer pixels.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder as _};
use moco_augment::{AugmentError, RgbImage, exif_orientation};
use moco_ingest::ImageFormat;

/// The bytes that go into a shard.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) format: ImageFormat,
    pub(crate) bytes: Vec<u8>,
}

/// What becomes of images that are too large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Longest side in pixels; no limit if absent.
    pub(crate) max_side: Option<u32>,
    /// Quality of JPEG.
    pub(crate) quality: u8,
}

/// The image with its longer side cut down to the limit, or its bytes as they are. It is decoded in any
/// case, by the decoder of training: what cannot be trained on does not go into a shard.
pub(crate) fn limited(bytes: Vec<u8>, limit: Limit) -> anyhow::Result<Encoded> {
    let picture = RgbImage::decode(&bytes)?;
    let (width, height) = (picture.width(), picture.height());
    let longer = width.max(height);
    match limit.max_side {
        Some(max_side) if longer > max_side => smaller(picture, &bytes, max_side, limit.quality),
        _ => Ok(Encoded { format: format_of(&bytes)?, bytes }),
    }
}

/// The picture again as JPEG. Its orientation tag is kept: what it means is decided in training.
fn smaller(picture: RgbImage, file: &[u8], max_side: u32, quality: u8) -> anyhow::Result<Encoded> {
    let (width, height) = (picture.width(), picture.height());
    let longer = f64::from(width.max(height));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a side")]
    let side = |side: u32| (f64::from(side) * f64::from(max_side) / longer).round().max(1.0) as u32;
    let (small_width, small_height) = (side(width), side(height));
    let Some(pixels) = image::RgbImage::from_raw(width, height, picture.into_pixels()) else {
        return Err(AugmentError::NoPixels { width, height }.into());
    };
    let small = resize(&pixels, small_width, small_height, FilterType::Lanczos3);
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    if let Some(orientation) = exif_orientation(file) {
        encoder.set_exif_metadata(orientation_tag(orientation))?;
    }
    encoder.write_image(small.as_raw(), small_width, small_height, ExtendedColorType::Rgb8)?;
    Ok(Encoded { format: ImageFormat::Jpeg, bytes })
}

/// EXIF data that says nothing but the orientation: little-endian TIFF with one entry.
fn orientation_tag(orientation: u8) -> Vec<u8> {
    let head = *b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0";
    [&head[..], &[orientation, 0, 0, 0, 0, 0, 0, 0]].concat()
}

/// The format by the first bytes: names lie, also in ImageNet.
fn format_of(bytes: &[u8]) -> anyhow::Result<ImageFormat> {
    match image::guess_format(bytes) {
        Ok(image::ImageFormat::Jpeg) => Ok(ImageFormat::Jpeg),
        Ok(image::ImageFormat::Png) => Ok(ImageFormat::Png),
        Ok(image::ImageFormat::WebP) => Ok(ImageFormat::WebP),
        Ok(image::ImageFormat::Bmp) => Ok(ImageFormat::Bmp),
        Ok(image::ImageFormat::Tiff) => Ok(ImageFormat::Tiff),
        Ok(image::ImageFormat::Gif) => Ok(ImageFormat::Gif),
        _ => anyhow::bail!("its format has no name here"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::DynamicImage;
    use moco_augment::Exif;

    use super::*;

    const LIMIT: Limit = Limit { max_side: Some(50), quality: 90 };

    fn file(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image =
            image::RgbImage::from_fn(width, height, |x, _| image::Rgb([(x % 256) as u8; 3]));
        DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn large_images_shrink_and_small_ones_keep_their_bytes() {
        let png = |width, height| file(width, height, image::ImageFormat::Png);
        for ((width, height), expected) in [
            ((200, 100), (50, 25)),
            ((100, 200), (25, 50)),
            ((51, 51), (50, 50)),
            ((400, 4), (50, 1)),
        ] {
            let small = limited(png(width, height), LIMIT).unwrap();
            assert_eq!(small.format, ImageFormat::Jpeg);
            assert_eq!(format_of(&small.bytes).unwrap(), ImageFormat::Jpeg);
            let decoded = RgbImage::decode(&small.bytes).unwrap();
            assert_eq!((decoded.width(), decoded.height()), expected);
        }
        let kept = limited(png(50, 40), LIMIT).unwrap();
        assert_eq!((kept.format, kept.bytes), (ImageFormat::Png, png(50, 40)));
        let kept = limited(png(500, 40), Limit { max_side: None, quality: 90 }).unwrap();
        assert_eq!(kept.bytes, png(500, 40));
    }

    #[test]
    fn formats_are_known_by_their_bytes() {
        for (format, expected) in [
            (image::ImageFormat::Bmp, ImageFormat::Bmp),
            (image::ImageFormat::Tiff, ImageFormat::Tiff),
            (image::ImageFormat::Gif, ImageFormat::Gif),
            (image::ImageFormat::WebP, ImageFormat::WebP),
        ] {
            let bytes = file(20, 10, format);
            let kept = limited(bytes.clone(), LIMIT).unwrap();
            assert_eq!((kept.format, kept.bytes), (expected, bytes));
        }
    }

    #[test]
    fn the_orientation_survives() {
        let mut tagged = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut tagged, 90);
        encoder.set_exif_metadata(orientation_tag(6)).unwrap();
        encoder.write_image(&[7; 100 * 60], 100, 60, ExtendedColorType::L8).unwrap();
        let small = limited(tagged, LIMIT).unwrap().bytes;
        assert_eq!(exif_orientation(&small), Some(6));
        let seen = RgbImage::decode_as(&small, Exif::Apply).unwrap();
        assert_eq!((seen.width(), seen.height()), (30, 50));
    }

    /// Whether it is made smaller or not, what the trainer refuses is refused here.
    #[test]
    fn what_cannot_be_trained_on_is_an_error() {
        let jpeg = file(200, 100, image::ImageFormat::Jpeg);
        let n_bytes = jpeg.len() / 2;
        let cut = jpeg[..n_bytes].to_vec();
        let truncated = format!(
            "JPEG image is truncated: the data ends after {n_bytes} bytes, before the end of the picture"
        );
        for (bytes, expected) in [
            (
                b"<html>404</html>".to_vec(),
                "image is no JPEG, PNG, WebP, BMP, TIFF or GIF: its first",
            ),
            (Vec::new(), "image is empty: expected the bytes of an image file, got 0 bytes"),
            (cut, truncated.as_str()),
        ] {
            for max_side in [None, Some(50), Some(500)] {
                let limit = Limit { max_side, quality: 90 };
                let message = limited(bytes.clone(), limit).unwrap_err().to_string();
                assert!(message.starts_with(expected), "{message}");
            }
        }
    }
}
