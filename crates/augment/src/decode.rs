//! From the bytes of an image file to RGB, with Pillow's `convert("RGB")` for other pixel types.
//!
//! Color profiles and gamma are ignored, as torchvision's loader does, and orientation tags unless the caller
//! wants them. Samples of JPEG and PNG are those of Pillow, bit for bit; what is refused although Pillow decodes
//! it is deviation D6, and `formats` has the other formats.

use image::ImageFormat;
use moco_jpeg::{BelowRegion, JpegError};

use crate::exif::turned;
use crate::png_chunks::PngFault;
use crate::{AugmentError, CropBox, Exif, Fidelity, RgbImage, formats, png_chunks, png_pixels};

/// The longest side decoded.
pub(crate) const MAX_SIDE: u32 = 20_000;
/// The most pixels decoded.
pub(crate) const MAX_PIXELS: u64 = 100_000_000;

impl RgbImage {
    /// Decodes a JPEG, PNG, WebP, BMP, TIFF or GIF file, recognized by its first bytes; of several pictures
    /// the first. Orientation tags are ignored.
    ///
    /// Alpha is dropped, gray is replicated, CMYK becomes RGB. 16-bit gray is clamped to 255 and other
    /// 16-bit pixels keep their high byte, which is what Pillow makes of them.
    ///
    /// # Errors
    /// [`AugmentError::Empty`], [`AugmentError::Format`], [`AugmentError::Truncated`],
    /// [`AugmentError::TooLarge`] (from the header, before anything is allocated),
    /// [`AugmentError::Damaged`], [`AugmentError::Unsupported`], [`AugmentError::Float`] and
    /// [`AugmentError::Decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AugmentError> {
        Self::decode_part(bytes, Fidelity::Exact, |_, _| None).map(|part| part.pixels)
    }

    /// Decodes an image file, turned as its orientation tag says if that is wanted.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn decode_as(bytes: &[u8], exif: Exif) -> Result<Self, AugmentError> {
        let picture = Self::decode(bytes)?;
        match exif {
            Exif::Ignore => Ok(picture),
            Exif::Apply => turned(picture, bytes),
        }
    }

    /// Decodes at least the region that `choose` names, given width and height; `None` is all of it.
    pub(crate) fn decode_part(
        bytes: &[u8],
        fidelity: Fidelity,
        choose: impl FnOnce(u32, u32) -> Option<CropBox>,
    ) -> Result<Part, AugmentError> {
        if bytes.is_empty() {
            return Err(AugmentError::Empty);
        }
        let unknown = || AugmentError::Format { head: bytes[..bytes.len().min(8)].to_vec() };
        let pixels = match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => return decode_jpeg(bytes, fidelity, choose),
            Ok(ImageFormat::Png) => decode_png(bytes)?,
            Ok(format) => {
                let name = formats::name(format).ok_or_else(unknown)?;
                formats::decode(bytes, format, name, check_size)?
            }
            Err(_) => return Err(unknown()),
        };
        let (width, height) = (pixels.width(), pixels.height());
        choose(width, height);
        Ok(Part { size: (width, height), region: CropBox::whole(width, height), pixels })
    }
}

fn decode_png(bytes: &[u8]) -> Result<RgbImage, AugmentError> {
    let n_bytes = bytes.len();
    let failed = |fault| match fault {
        PngFault::Truncated => AugmentError::Truncated { format: "PNG", n_bytes },
        PngFault::Damaged(reason) => AugmentError::Damaged { format: "PNG", n_bytes, reason },
    };
    let file = png_chunks::read(bytes).map_err(failed)?;
    check_size(file.width, file.height)?;
    let pixels = png_pixels::decode(&file).map_err(failed)?;
    RgbImage::new(file.width, file.height, pixels)
}

/// Part of a picture.
pub(crate) struct Part {
    /// Sides of the whole picture.
    pub(crate) size: (u32, u32),
    /// Where the part is in it.
    pub(crate) region: CropBox,
    pub(crate) pixels: RgbImage,
}

fn decode_jpeg(
    bytes: &[u8],
    fidelity: Fidelity,
    choose: impl FnOnce(u32, u32) -> Option<CropBox>,
) -> Result<Part, AugmentError> {
    let n_bytes = bytes.len();
    let failed = |error| match error {
        JpegError::Truncated => AugmentError::Truncated { format: "JPEG", n_bytes },
        JpegError::Damaged(reason) => AugmentError::Damaged { format: "JPEG", n_bytes, reason },
        JpegError::Unsupported(feature) => AugmentError::Unsupported { n_bytes, feature },
        other => AugmentError::Jpeg(other),
    };
    let jpeg = moco_jpeg::read_header(bytes).map_err(failed)?;
    let (width, height) = (jpeg.width, jpeg.height);
    check_size(width, height)?;
    let region = choose(width, height).unwrap_or(CropBox::whole(width, height));
    let below = match fidelity {
        Fidelity::Exact => BelowRegion::Read,
        Fidelity::Fast => BelowRegion::Skip,
    };
    let pixels = moco_jpeg::decode(jpeg, region.region(), below).map_err(failed)?;
    let pixels = RgbImage::new(region.width, region.height, pixels)?;
    Ok(Part { size: (width, height), region, pixels })
}

/// Refuses pictures past the limits.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), AugmentError> {
    let (max_side, max_pixels) = (MAX_SIDE, MAX_PIXELS);
    if width.max(height) > max_side || u64::from(width) * u64::from(height) > max_pixels {
        return Err(AugmentError::TooLarge { width, height, max_side, max_pixels });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use image::ExtendedColorType::Rgb8;
    use image::ImageEncoder;
    use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};

    use super::*;

    fn pixels() -> Vec<u8> {
        (0_u8..=255).cycle().step_by(7).take(32 * 24 * 3).collect()
    }

    fn files() -> [(&'static str, Vec<u8>); 2] {
        let (mut jpeg, mut png) = (Vec::new(), Vec::new());
        JpegEncoder::new(&mut jpeg).write_image(&pixels(), 32, 24, Rgb8).unwrap();
        PngEncoder::new(&mut png).write_image(&pixels(), 32, 24, Rgb8).unwrap();
        [("JPEG", jpeg), ("PNG", png)]
    }

    #[test]
    fn png_is_lossless_and_jpeg_close() {
        let [(_, jpeg), (_, png)] = files();
        assert_eq!(RgbImage::decode(&png).unwrap().pixels(), pixels());
        let jpeg = RgbImage::decode(&jpeg).unwrap();
        assert_eq!((jpeg.width(), jpeg.height()), (32, 24));
        let mean = |v: &[u8]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
        assert!((mean(jpeg.pixels()) - mean(&pixels())).abs() < 3.0);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_never_a_gray_picture() {
        for (name, file) in files() {
            for end in 8..file.len() - 1 {
                let error = RgbImage::decode(&file[..end]).unwrap_err().to_string();
                let expected = format!(
                    "{name} image is truncated: the data ends after {end} bytes, before the end of the picture"
                );
                assert_eq!(error, expected);
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_ignored() {
        for (_, file) in files() {
            let padded = [file.as_slice(), &[0; 100]].concat();
            assert_eq!(RgbImage::decode(&padded).unwrap(), RgbImage::decode(&file).unwrap());
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let message = |bytes: &[u8]| RgbImage::decode(bytes).unwrap_err().to_string();
        assert_eq!(
            message(b""),
            "image is empty: expected the bytes of an image file, got 0 bytes"
        );
        assert_eq!(
            message(b"%PDF-1.4 and more"),
            "image is no JPEG, PNG, WebP, BMP, TIFF or GIF: its first bytes are \
             [25, 50, 44, 46, 2d, 31, 2e, 34]; convert it to one of them"
        );
        assert!(message(b"{").contains("first bytes are [7b];"));
    }

    #[test]
    fn damage_inside_names_the_format_and_keeps_the_reason() {
        let [_, (_, mut png)] = files();
        let n = png.len();
        png[41..60].fill(0);
        let error = RgbImage::decode(&png).unwrap_err();
        let expected =
            format!("PNG image of {n} bytes is damaged: its compressed data has no header of zlib");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_header_over_the_limits_is_refused_before_decoding() {
        // The picture behind these headers holds far fewer pixels than they promise.
        for (width, height) in [(20_001, 1), (1, 60_000), (10_001, 10_000)] {
            let error = RgbImage::decode(&png_with_header(width, height)).unwrap_err().to_string();
            let expected = format!(
                "image of {width}x{height} pixels is too large: expected sides of at most 20000 and at \
                 most 100000000 pixels; downscale it before training"
            );
            assert_eq!(error, expected);
        }
        assert!(check_size(20_000, 5_000).is_ok() && check_size(20_000, 5_001).is_err());
    }

    /// A PNG whose header chunk claims these sides, with its checksum right.
    fn png_with_header(width: u32, height: u32) -> Vec<u8> {
        let [_, (_, mut png)] = files();
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = png[12..29].iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)))
        });
        png[29..33].copy_from_slice(&(!crc).to_be_bytes());
        png
    }
}
