//! Changes of images between cropping and normalization, only on a GPU: on a CPU, views are finished by
//! the crate `augment` where they are cut out, while they are in the cache.

use candle_core::{DType, Tensor};

use super::augment_gpu;
use super::steps::ImageStep;
use crate::backend;
use crate::dense::{dims4, shape};
use crate::error::OpError;

const OP: &str = "augment_images";
/// The longest side: two rows in the shared memory of a block.
const MAX_SIDE: usize = 8000;

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
    match backend::of(OP, pixels)? {
        Some(gpu) => augment_gpu::augment(&*gpu, pixels, steps),
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
