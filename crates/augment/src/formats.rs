//! WebP, BMP, TIFF and GIF files to RGB, through the crate `image`.
//!
//! Of an animation the first picture counts. Alpha is dropped, as Pillow's `convert("RGB")` does. The
//! samples are Pillow's but for what deviation D11 lists.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::{AugmentError, RgbImage};

/// The most that a decoder may allocate: the largest picture of the widest pixels, four channels of 32 bits.
const MAX_BYTES: u64 = 100_000_000 * 16;

/// The name of a format that is decoded here, in messages; `None` for all others.
pub(crate) fn name(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Bmp => Some("BMP"),
        ImageFormat::Tiff => Some("TIFF"),
        ImageFormat::Gif => Some("GIF"),
        _ => None,
    }
}

/// Decodes the first picture of a file in the format of this name, whose sides `check` accepts.
pub(crate) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    check: impl FnOnce(u32, u32) -> Result<(), AugmentError>,
) -> Result<RgbImage, AugmentError> {
    let n_bytes = bytes.len();
    let failed = |source| AugmentError::Decode { format: name, n_bytes, source };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check(width, height)?;
    match DynamicImage::from_decoder(decoder).map_err(failed)? {
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            Err(AugmentError::Float { format: name, n_bytes })
        }
        decoded => RgbImage::new(width, height, to_rgb(decoded)),
    }
}

fn to_rgb(decoded: DynamicImage) -> Vec<u8> {
    match decoded {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageLuma8(pixels) => replicate(pixels.pixels().map(|p| p.0[0])),
        DynamicImage::ImageLumaA8(pixels) => replicate(pixels.pixels().map(|p| p.0[0])),
        DynamicImage::ImageRgba8(pixels) => {
            pixels.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect()
        }
        // Pillow's mode I;16 clamps instead of scaling.
        DynamicImage::ImageLuma16(pixels) => {
            replicate(pixels.pixels().map(|p| u8::try_from(p.0[0]).unwrap_or(u8::MAX)))
        }
        DynamicImage::ImageLumaA16(pixels) => replicate(pixels.pixels().map(|p| high(p.0[0]))),
        DynamicImage::ImageRgb16(pixels) => pixels.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(pixels) => {
            pixels.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}

fn replicate(grays: impl Iterator<Item = u8>) -> Vec<u8> {
    grays.flat_map(|gray| [gray; 3]).collect()
}

fn high(sample: u16) -> u8 {
    sample.to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (21, 9);
    const FORMATS: [ImageFormat; 4] =
        [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Gif];

    /// Few colors, so that a palette has all of them.
    fn pixels() -> Vec<u8> {
        let (width, height) = SIZE;
        let color = |i: u32| [(i % 5) as u8 * 60, (i % 3) as u8 * 100, 255 - (i % 7) as u8 * 30];
        (0..width * height).flat_map(color).collect()
    }

    fn file(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn rgb() -> DynamicImage {
        image::RgbImage::from_raw(SIZE.0, SIZE.1, pixels()).unwrap().into()
    }

    #[test]
    fn each_format_is_known_by_its_bytes_and_gives_its_pixels() {
        for format in FORMATS {
            let image = RgbImage::decode(&file(&rgb(), format)).unwrap();
            assert_eq!((image.width(), image.height()), SIZE, "{format:?}");
            assert!(image.pixels() == pixels(), "{format:?}");
        }
    }

    #[test]
    fn alpha_is_dropped_and_wide_samples_keep_their_high_byte() {
        let rgba = pixels()
            .chunks(3)
            .zip(0..)
            .flat_map(|(rgb, i): (_, u8)| [rgb[0], rgb[1], rgb[2], i % 255 + 1])
            .collect();
        let rgba: DynamicImage = image::RgbaImage::from_raw(SIZE.0, SIZE.1, rgba).unwrap().into();
        for format in [ImageFormat::WebP, ImageFormat::Tiff] {
            let image = RgbImage::decode(&file(&rgba, format)).unwrap();
            assert!(image.pixels() == pixels(), "{format:?}");
        }
        let wide = pixels().into_iter().map(|sample| u16::from(sample) << 8 | 0x7f).collect();
        let wide = image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(SIZE.0, SIZE.1, wide);
        let image = RgbImage::decode(&file(&wide.unwrap().into(), ImageFormat::Tiff)).unwrap();
        assert!(image.pixels() == pixels());
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_or_the_whole_picture() {
        for format in FORMATS {
            let whole = file(&rgb(), format);
            let mut n_errors = 0;
            for end in 4..whole.len() {
                match RgbImage::decode(&whole[..end]) {
                    Ok(image) => assert!(image.pixels() == pixels(), "{format:?} cut at {end}"),
                    Err(_) => n_errors += 1,
                }
            }
            // The last bytes of some formats say only that nothing follows.
            assert!(n_errors + 4 + 8 >= whole.len(), "{format:?}: {n_errors} of {}", whole.len());
        }
    }

    #[test]
    fn what_is_damaged_or_has_no_range_names_its_format() {
        for format in FORMATS {
            let whole = file(&rgb(), format);
            let message = RgbImage::decode(&whole[..whole.len() / 2]).unwrap_err().to_string();
            let (name, n) = (name(format).unwrap(), whole.len() / 2);
            assert_eq!(message, format!("{name} image of {n} bytes cannot be decoded"));
        }
        let float = image::Rgb32FImage::from_pixel(2, 2, image::Rgb([0.5; 3]));
        let file = file(&float.into(), ImageFormat::Tiff);
        let expected = format!(
            "TIFF image of {} bytes has floating-point samples; save it with 8 or 16 bits a sample",
            file.len()
        );
        assert_eq!(RgbImage::decode(&file).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_header_over_the_limits_is_refused_before_anything_is_allocated() {
        let mut bmp = file(&rgb(), ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&30_000_i32.to_le_bytes());
        let message = RgbImage::decode(&bmp).unwrap_err().to_string();
        assert!(message.starts_with("image of 30000x9 pixels is too large: "), "{message}");
    }
}
