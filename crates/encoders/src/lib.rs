//! Encoders with an explicit forward and backward: ResNets, projection heads, and an adapter for any
//! candle autograd module.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use moco_encoders::{Arch, BnConfig, Encoder, Mode, ResNet, ResNetConfig, RunningStats, Stem};
//! let bn = BnConfig { groups: 1, running: RunningStats::First };
//! let config = ResNetConfig { arch: Arch::ResNet10, stem: Stem::Cifar, width: 0.25, bn };
//! let mut encoder = ResNet::new(config, moco_rng::Seed(0), DType::F32)?;
//! let images = Tensor::zeros((2, 3, 8, 8), DType::F32, &Device::Cpu)?;
//! assert_eq!(encoder.features(&images, Mode::Eval)?.dims(), [2, 128]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod autograd;
mod block;
mod config;
mod conv_bn;
mod encoder;
mod head;
mod init;
mod resnet;

pub use autograd::AutogradEncoder;
pub use config::{Arch, BnConfig, HeadKind, ResNetConfig, RunningStats, Stem};
pub use encoder::{Encoder, EncoderError, Mode, Saved};
pub use head::{Head, HeadSaved};
pub use resnet::ResNet;
