//! Encoders: ResNets and projection heads with an explicit forward and backward, vision transformers, and
//! the adapter for candle autograd modules that they go through.
//!
//! The principal type is the trait [`Encoder`], built from an [`EncoderConfig`]; a [`Head`] projects its
//! features. [`ResNet`] implements it directly, [`AutogradEncoder`] for a candle module.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use moco_encoders::{Arch, BnConfig, EncoderConfig, Mode, ResNetConfig, RunningStats, Stem};
//! let bn = BnConfig { groups: 1, running: RunningStats::First };
//! let config = ResNetConfig { arch: Arch::ResNet10, stem: Stem::Cifar, width: 0.25, bn };
//! let config = EncoderConfig::ResNet(config);
//! let mut encoder = config.build(moco_rng::Seed(0), DType::F32, &Device::Cpu)?;
//! let images = Tensor::zeros((2, 3, 8, 8), DType::F32, &Device::Cpu)?;
//! assert_eq!(encoder.features(&images, Mode::Eval)?.dims(), [2, 128]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod autograd;
mod block;
mod build;
mod config;
mod conv_bn;
mod encoder;
mod head;
mod init;
mod resnet;
mod vit;

pub use autograd::AutogradEncoder;
pub use build::EncoderConfig;
pub use config::{Arch, BnConfig, HeadKind, ResNetConfig, RunningStats, Stem, VitConfig, VitShape};
pub use encoder::{Encoder, EncoderError, GradientSink, Mode, Saved};
pub use head::{Head, HeadSaved};
pub use resnet::ResNet;
