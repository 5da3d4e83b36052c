//! The part of a view that is left to a GPU: everything between cropping and normalization.

use moco_augment::{JitterOp, Step};
use moco_ops::ImageStep;

/// Steps of a view as the GPU's kernels take them.
#[must_use]
pub fn image_steps(steps: &[Step]) -> Vec<ImageStep> {
    let image_steps = |step: &Step| match *step {
        Step::Jitter(draw) => {
            let of_jitter = |op| match op {
                JitterOp::Brightness => ImageStep::Brightness(draw.brightness),
                JitterOp::Contrast => ImageStep::Contrast(draw.contrast),
                JitterOp::Saturation => ImageStep::Saturation(draw.saturation),
                JitterOp::Hue => ImageStep::Hue(draw.hue),
            };
            draw.order.map(of_jitter).to_vec()
        }
        Step::Grayscale => vec![ImageStep::Grayscale],
        Step::Blur { sigma } => vec![ImageStep::Blur { sigma }],
        Step::Flip => vec![ImageStep::Flip],
    };
    steps.iter().flat_map(image_steps).collect()
}
