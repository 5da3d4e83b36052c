//! Every backbone that a config can name, and the way from its configuration to the network.

use candle_core::{DType, Device};
use moco_rng::Seed;

use crate::config::{ResNetConfig, VitConfig};
use crate::encoder::{Encoder, EncoderError};
use crate::resnet::ResNet;
use crate::vit;

/// Every backbone that a config can name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EncoderConfig {
    /// A ResNet, with a backward pass written by hand.
    ResNet(ResNetConfig),
    /// A vision transformer, with candle's automatic gradients.
    Vit(VitConfig),
}

impl EncoderConfig {
    /// The network with initial values from `seed`, in f32 or f64, on `device`.
    ///
    /// # Errors
    /// If the configuration describes no network, or the device has no room.
    pub fn build(
        &self,
        seed: Seed,
        dtype: DType,
        device: &Device,
    ) -> Result<Box<dyn Encoder>, EncoderError> {
        match self {
            Self::ResNet(config) => {
                let mut encoder = ResNet::new(*config, seed, dtype)?;
                encoder.params_mut().to_device(device)?;
                Ok(Box::new(encoder))
            }
            Self::Vit(config) => Ok(Box::new(vit::build(*config, seed, dtype, device)?)),
        }
    }

    /// Groups of a batch with batch norm statistics of their own; 1 without batch norm.
    #[must_use]
    pub fn bn_groups(&self) -> usize {
        if let Self::ResNet(config) = self { config.bn.groups } else { 1 }
    }
}
