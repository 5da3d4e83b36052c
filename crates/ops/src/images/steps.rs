//! Changes of an image.

/// One change of an image, as Pillow 12.3.0 and torchvision 0.29.2 make it: samples are rounded to u8
/// after each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ImageStep {
    /// Blends with black by this factor; 1 changes nothing (Pillow `ImageEnhance.Brightness`).
    Brightness(f64),
    /// Blends with a gray of the mean luma by this factor (Pillow `ImageEnhance.Contrast`).
    Contrast(f64),
    /// Blends each pixel with its luma by this factor (Pillow `ImageEnhance.Color`).
    Saturation(f64),
    /// Turns the hue by this share of a full turn (torchvision `adjust_hue`).
    Hue(f64),
    /// Replaces each pixel by its luma (torchvision `to_grayscale(num_output_channels=3)`).
    Grayscale,
    /// Blurs with this standard deviation in pixels, 0 to 100 (Pillow `GaussianBlur`).
    Blur {
        /// Standard deviation in pixels.
        sigma: f64,
    },
    /// Reverses each row (torchvision `hflip`).
    Flip,
}
