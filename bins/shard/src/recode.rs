//! Makes images smaller that have more pixels than training needs.

use anyhow::{Context as _, bail};
use image::{DynamicImage, ImageReader, codecs::jpeg::JpegEncoder, imageops::FilterType};
use moco_ingest::ImageFormat;

/// The bytes that go into a shard.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) format: ImageFormat,
    pub(crate) bytes: Vec<u8>,
}

/// The format by the first bytes: names lie, also in ImageNet.
pub(crate) fn format_of(bytes: &[u8]) -> anyhow::Result<ImageFormat> {
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        Ok(ImageFormat::Jpeg)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Ok(ImageFormat::Png)
    } else {
        bail!("neither JPEG nor PNG, by its first bytes")
    }
}

/// The image with its longer side cut down to `max_side` pixels, or its bytes as they are.
pub(crate) fn limited(bytes: Vec<u8>, max_side: u32, quality: u8) -> anyhow::Result<Encoded> {
    let format = format_of(&bytes)?;
    let reader = || ImageReader::new(std::io::Cursor::new(&bytes)).with_guessed_format();
    let (width, height) = reader()?.into_dimensions().context("cannot read its header")?;
    if width.max(height) <= max_side {
        return Ok(Encoded { format, bytes });
    }
    // The decoder's own limits protect against headers that promise gigabytes.
    let image = reader()?.decode().context("cannot decode it")?;
    let small = image.resize(max_side, max_side, FilterType::Lanczos3);
    let rgb = DynamicImage::ImageRgb8(small.into_rgb8());
    let mut recoded = Vec::new();
    rgb.write_with_encoder(JpegEncoder::new_with_quality(&mut recoded, quality))
        .context("cannot encode it")?;
    Ok(Encoded { format: ImageFormat::Jpeg, bytes: recoded })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let gray = image::GrayImage::from_fn(width, height, |x, _| image::Luma([(x % 256) as u8]));
        DynamicImage::ImageLuma8(gray).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn large_images_shrink_and_small_ones_keep_their_bytes() {
        for ((width, height), expected) in
            [((200, 100), (50, 25)), ((100, 200), (25, 50)), ((51, 51), (50, 50))]
        {
            let small = limited(png(width, height), 50, 90).unwrap();
            assert_eq!(small.format, ImageFormat::Jpeg);
            assert_eq!(format_of(&small.bytes).unwrap(), ImageFormat::Jpeg);
            let decoded = image::load_from_memory(&small.bytes).unwrap();
            assert_eq!((decoded.width(), decoded.height()), expected);
        }
        let kept = limited(png(50, 40), 50, 90).unwrap();
        assert_eq!((kept.format, kept.bytes), (ImageFormat::Png, png(50, 40)));
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        let mut cut = png(200, 100);
        cut.truncate(60);
        for (bytes, expected) in [
            (b"RIFF....WEBP".to_vec(), "neither JPEG nor PNG, by its first bytes"),
            (Vec::new(), "neither JPEG nor PNG, by its first bytes"),
            (vec![0xff, 0xd8, 0xff, 0xe0], "cannot read its header"),
            (cut, "cannot decode it"),
        ] {
            assert_eq!(limited(bytes, 50, 90).unwrap_err().to_string(), expected);
        }
    }
}
