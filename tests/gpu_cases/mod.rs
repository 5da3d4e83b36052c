//! Small models and their inputs, for tests on an emulated and on a real GPU.

use candle_core::{DType, Device, Tensor};
use moco::{Batch, MechanismKind, Moco, MocoConfig, QueuePrecision};
use moco_encoders::{
    Arch, BnConfig, Encoder as _, HeadKind, ResNet, ResNetConfig, RunningStats, Stem,
};
use moco_optim::SgdConfig;
use moco_rng::{At, Purpose, Seed};

/// Images of a batch.
pub(crate) const N: usize = 8;
/// Learning rate.
pub(crate) const LR: f64 = 0.05;

/// A network and a way to train it.
pub(crate) struct Case {
    pub(crate) arch: Arch,
    pub(crate) stem: Stem,
    pub(crate) side: usize,
    pub(crate) head: HeadKind,
    pub(crate) symmetric: bool,
    pub(crate) running: RunningStats,
    pub(crate) queue_precision: QueuePrecision,
}

/// Both heads and stems, one direction of the loss and both.
pub(crate) const CASES: [Case; 2] = [
    Case {
        arch: Arch::ResNet10,
        stem: Stem::Cifar,
        side: 9,
        head: HeadKind::Fc,
        symmetric: true,
        running: RunningStats::Mean,
        queue_precision: QueuePrecision::AsParameters,
    },
    Case {
        arch: Arch::ResNet50,
        stem: Stem::ImageNet,
        side: 40,
        head: HeadKind::Mlp,
        symmetric: false,
        running: RunningStats::First,
        queue_precision: QueuePrecision::AsParameters,
    },
];

/// A model with parameters of this type on a device.
pub(crate) fn moco(case: &Case, parameters: DType, device: &Device) -> Moco {
    let Case { arch, stem, head, symmetric, running, queue_precision, .. } = *case;
    let bn = BnConfig { groups: 2, running };
    let encoder = ResNetConfig { arch, stem, width: 0.0625, bn };
    let mut encoder = ResNet::new(encoder, Seed(1), parameters).unwrap();
    encoder.params_mut().to_device(device).unwrap();
    let sgd = SgdConfig { sgd_momentum: 0.9, weight_decay: 1e-4 };
    let config = MocoConfig {
        mechanism: MechanismKind::Queue,
        queue_size: 44,
        key_momentum: 0.9,
        temperature: 0.2,
        dim: 12,
        symmetric,
        shuffle_bn: true,
        queue_precision,
    };
    Moco::new(Box::new(encoder), head, config, sgd, Seed(1)).unwrap()
}

/// The two views of an image are alike, so that there is something to find.
pub(crate) fn views(case: &Case, step: u64, dtype: DType, device: &Device) -> Batch {
    let numbers = |index: u64| {
        let mut stream = Seed(2).stream(Purpose::Augment, At::index(index));
        (0..N * case.side * case.side * 3).map(|_| stream.normal()).collect::<Vec<f64>>()
    };
    let (image, noise) = (numbers(2 * step), numbers(2 * step + 1));
    let view = |share: f64| {
        let mixed: Vec<f64> = image.iter().zip(&noise).map(|(a, b)| a + share * b).collect();
        let pixels = Tensor::from_vec(mixed, (N, case.side, case.side, 3), &Device::Cpu).unwrap();
        pixels.to_dtype(dtype).and_then(|x| x.to_device(device)?.permute((0, 3, 1, 2))).unwrap()
    };
    Batch { im_q: view(0.3), im_k: view(-0.3), sample_indices: Vec::new() }
}

/// A tensor's numbers in their logical order.
pub(crate) fn numbers(x: &Tensor) -> Vec<f64> {
    let x = x.to_device(&Device::Cpu).unwrap();
    x.to_dtype(DType::F64).and_then(|x| x.flatten_all()?.to_vec1()).unwrap()
}
