//! Changes of images between cropping and normalization, on a GPU alone: on a CPU, views are finished by
//! the crate `augment` where they are cut out, while they are in the cache.

use candle_core::{DType, Tensor};

use crate::dense::{dims4, shape};
use crate::error::OpError;
use crate::gpu;

const OP: &str = "augment_images";
/// The longest side: two rows in the shared memory of a block.
const MAX_SIDE: usize = 8000;

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

/// Square images, u8 `[N, S, S, 3]`, each after its own steps, first to last.
///
/// # Errors
/// If the pixels are not such images or S is over 8000, the number of lists is not N, a step's number is
/// not finite or a sigma not from 0 to 100, or the pixels are on a CPU.
pub fn augment_images(pixels: &Tensor, steps: &[Vec<ImageStep>]) -> Result<Tensor, OpError> {
    let [n, h, w, c] = dims4(OP, "pixels", pixels)?;
    if h != w || h > MAX_SIDE || c != 3 || pixels.dtype() != DType::U8 {
        let dtype = pixels.dtype();
        let expected = format!("[N, S, S, 3] of u8 and not {dtype:?}, S at most {MAX_SIDE}");
        return Err(shape(OP, "pixels", expected, pixels.dims()));
    }
    if steps.len() != n {
        return Err(shape(OP, "steps", format!("a list for each of {n} images"), &[steps.len()]));
    }
    for step in steps.iter().flatten() {
        check(*step)?;
    }
    match gpu::of(OP, pixels)? {
        Some(gpu) => gpu::images::augment(&*gpu, pixels, steps),
        None => Err(OpError::OnlyGpu { op: OP, instead: "moco_augment::Square::finish" }),
    }
}

fn check(step: ImageStep) -> Result<(), OpError> {
    let (argument, got, expected, most) = match step {
        ImageStep::Brightness(factor) => ("brightness", factor, "a number", f32::MAX),
        ImageStep::Contrast(factor) => ("contrast", factor, "a number", f32::MAX),
        ImageStep::Saturation(factor) => ("saturation", factor, "a number", f32::MAX),
        ImageStep::Hue(turn) => ("hue", turn, "from -1 to 1", 1.0),
        ImageStep::Blur { sigma } => ("sigma", sigma, "from 0 to 100", 100.0),
        ImageStep::Grayscale | ImageStep::Flip => return Ok(()),
    };
    let is_sigma = matches!(step, ImageStep::Blur { .. });
    // Written so that NaN fails.
    let valid = got.abs() <= f64::from(most) && !(is_sigma && got < 0.0);
    if valid { Ok(()) } else { Err(OpError::Argument { op: OP, argument, expected, got }) }
}
