//! A training step of an encoder: forward, backward and SGD.

use anyhow::Context as _;
use candle_core::{DType, Device};
use moco_encoders::{Arch, BnConfig, Encoder as _, ResNet, ResNetConfig, RunningStats, Stem};
use moco_optim::{Optimizer as _, Sgd, SgdConfig, learning_rate};
use moco_rng::Seed;

use crate::case::{Case, Words, activations, normal};

/// The loss is linear in the features, so that its gradient is a constant and only the encoder counts.
pub(crate) fn case(words: &mut Words<'_>) -> anyhow::Result<Case> {
    let name = words.word("ARCH")?;
    let arch = Arch::NAMES.into_iter().find(|(known, _)| *known == name);
    let (_, arch) = arch.with_context(|| format!("no architecture {name:?}"))?;
    let stem = match words.word("STEM")? {
        "cifar" => Stem::Cifar,
        "imagenet" => Stem::ImageNet,
        other => anyhow::bail!("STEM is {other:?}, expected `cifar` or `imagenet`"),
    };
    let size: usize = words.number("SIZE")?;
    let n: usize = words.number("BATCH")?;
    let bn = BnConfig { groups: 1, running: RunningStats::First };
    let mut encoder =
        ResNet::new(ResNetConfig { arch, stem, width: 1.0, bn }, Seed(0), DType::F32)?;
    let mut sgd =
        Sgd::new(SgdConfig { sgd_momentum: 0.9, weight_decay: 1e-4 }, &[encoder.params()])?;
    let images = activations([n, 3, size, size], 0)?;
    let slope = normal(&[n, encoder.feature_dim()], 1)?;
    let lr = learning_rate(1e-3, DType::F32, &Device::Cpu)?;
    Ok(Case::from(move || {
        let (_, saved) = encoder.forward(&images)?;
        let gradients = encoder.gradients(saved, &slope)?;
        sgd.step(&[encoder.params()], &gradients, &lr)?;
        Ok(())
    }))
}
