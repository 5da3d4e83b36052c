//! Errors between the bytes of an image file and a view.

/// Why an image could not be decoded or a view not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// There are no bytes.
    #[error("image is empty: expected the bytes of an image file, got 0 bytes")]
    Empty,
    /// The first bytes belong to no format that is decoded.
    #[error(
        "image is no JPEG, PNG, WebP, BMP, TIFF or GIF: its first bytes are {head:02x?}; convert it to one of them"
    )]
    Format {
        /// Up to eight bytes from the start.
        head: Vec<u8>,
    },
    /// The file ends before its picture does.
    #[error(
        "{format} image is truncated: the data ends after {n_bytes} bytes, before the end of the picture"
    )]
    Truncated {
        /// `JPEG` or `PNG`.
        format: &'static str,
        /// Length of what there is.
        n_bytes: usize,
    },
    /// The header promises a picture over the limits; nothing was allocated for it.
    #[error(
        "image of {width}x{height} pixels is too large: expected sides of at most {max_side} \
         and at most {max_pixels} pixels; downscale it before training"
    )]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The longest side accepted.
        max_side: u32,
        /// The most pixels accepted.
        max_pixels: u64,
    },
    /// The data contradicts a rule of the format.
    #[error("{format} image of {n_bytes} bytes is damaged: {reason}")]
    Damaged {
        /// `JPEG` or `PNG`.
        format: &'static str,
        /// Length of the file.
        n_bytes: usize,
        /// The reason.
        reason: &'static str,
    },
    /// A JPEG of a rare kind.
    #[error(
        "JPEG image of {n_bytes} bytes has {feature}, which is not decoded; \
         save it as a baseline or progressive JPEG"
    )]
    Unsupported {
        /// Length of the file.
        n_bytes: usize,
        /// The requirement.
        feature: &'static str,
    },
    /// The decoder of JPEG files refuses for another reason.
    #[error(transparent)]
    Jpeg(moco_jpeg::JpegError),
    /// Numbers with a point, whose range nothing says.
    #[error(
        "{format} image of {n_bytes} bytes has floating-point samples; save it with 8 or 16 bits a sample"
    )]
    Float {
        /// `TIFF`.
        format: &'static str,
        /// Length of the file.
        n_bytes: usize,
    },
    /// The decoder found the data of a file damaged, or uses a feature it lacks.
    #[error("{format} image of {n_bytes} bytes cannot be decoded")]
    Decode {
        /// `WebP`, `BMP`, `TIFF` or `GIF`.
        format: &'static str,
        /// Length of the file.
        n_bytes: usize,
        /// The decoder's reason.
        #[source]
        source: image::ImageError,
    },
    /// Width, height and the number of bytes disagree.
    #[error("a {width}x{height} RGB image needs {expected} bytes, got {got}")]
    PixelCount {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// 3 · width · height.
        expected: u64,
        /// Bytes that came.
        got: usize,
    },
    /// An image without pixels has no views.
    #[error("an image of {width}x{height} pixels has no pixels: both sides must be at least 1")]
    NoPixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A box reaches past the image, or it or the result has no pixels.
    #[error(
        "crop of {}x{} pixels at row {}, column {} to {size}x{size} is impossible in a {width}x{height} image",
        crop.width, crop.height, crop.top, crop.left
    )]
    CropOutside {
        /// The box asked for.
        crop: crate::CropBox,
        /// Side of the result.
        size: u32,
        /// Pixels in a row of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
    },
    /// Parameters drawn for an image of one size were applied to one of another.
    #[error(
        "a view drawn for a {}x{} image was applied to a {}x{} image",
        expected.0, expected.1, got.0, got.1
    )]
    OtherSource {
        /// Width and height the view was drawn for.
        expected: (u32, u32),
        /// Width and height of the image.
        got: (u32, u32),
    },
    /// A number of a recipe is outside what it means.
    #[error("recipe: {key} must be {expected}, got {got}")]
    Recipe {
        /// The field of [`RecipeConfig`](crate::RecipeConfig).
        key: &'static str,
        /// The rule.
        expected: &'static str,
        /// The value that was given.
        got: String,
    },
}
