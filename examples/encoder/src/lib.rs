//! A user's own encoder crate: an ordinary candle module that knows nothing of MoCo.
#![forbid(unsafe_code)]

use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, VarBuilder, conv2d, linear};

/// Width of [`PatchMixer`]'s features.
pub const FEATURE_DIM: usize = 48;

/// Patches of 8×8 pixels through two mixing layers, then their mean: images `[N, 3, H, W]` to features
/// `[N, FEATURE_DIM]`.
#[derive(Debug)]
pub struct PatchMixer {
    patches: Conv2d,
    mix: [Linear; 2],
}

impl PatchMixer {
    /// Creates the variables.
    ///
    /// # Errors
    /// If the builder refuses one.
    #[expect(clippy::needless_pass_by_value, reason = "candle's constructors take it so")]
    pub fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let stride = Conv2dConfig { stride: 8, ..Conv2dConfig::default() };
        Ok(Self {
            patches: conv2d(3, FEATURE_DIM, 8, stride, vb.pp("patches"))?,
            mix: [
                linear(FEATURE_DIM, FEATURE_DIM, vb.pp("mix.0"))?,
                linear(FEATURE_DIM, FEATURE_DIM, vb.pp("mix.1"))?,
            ],
        })
    }
}

impl Module for PatchMixer {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let tokens = self.patches.forward(&images.contiguous()?)?.flatten_from(2)?;
        let mut tokens = tokens.transpose(1, 2)?.contiguous()?;
        for layer in &self.mix {
            tokens = (&tokens + layer.forward(&tokens)?.gelu()?)?;
        }
        tokens.mean(1)
    }
}
