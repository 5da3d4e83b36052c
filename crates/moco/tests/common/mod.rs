//! A small network in f64 and its images, for the tests of every mechanism.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use moco::{Batch, MechanismKind, MocoConfig, MocoState, QueuePrecision};
use moco_encoders::{Arch, BnConfig, Encoder, ResNet, ResNetConfig, RunningStats, Stem};
use moco_optim::SgdConfig;
use moco_rng::{At, Purpose, Seed};

/// Images of a batch.
pub(crate) const N: usize = 8;
pub(crate) const SEED: Seed = Seed(1);
pub(crate) const SGD: SgdConfig = SgdConfig { sgd_momentum: 0.9, weight_decay: 1e-4 };

pub(crate) fn images(index: u64) -> Tensor {
    let mut stream = Seed(2).stream(Purpose::Augment, At::index(index));
    let numbers: Vec<f64> = (0..N * 3 * 64).map(|_| stream.normal()).collect();
    Tensor::from_vec(numbers, (N, 3, 8, 8), &Device::Cpu).unwrap()
}

/// Two views of the images 100·step, 100·step + 1, …
pub(crate) fn batch(step: u64) -> Batch {
    let sample_indices = (0..N as u64).map(|i| 100 * step + i).collect();
    Batch { im_q: images(2 * step), im_k: images(2 * step + 1), sample_indices }
}

pub(crate) fn config(mechanism: MechanismKind) -> MocoConfig {
    MocoConfig {
        mechanism,
        queue_size: 20,
        key_momentum: 0.9,
        temperature: 0.2,
        dim: 12,
        symmetric: false,
        shuffle_bn: true,
        queue_precision: QueuePrecision::AsParameters,
    }
}

pub(crate) fn encoder(groups: usize) -> Box<dyn Encoder> {
    let bn = BnConfig { groups, running: RunningStats::First };
    let encoder = ResNetConfig { arch: Arch::ResNet10, stem: Stem::Cifar, width: 0.0625, bn };
    Box::new(ResNet::new(encoder, SEED, DType::F64).unwrap())
}

/// The numbers of a state, by name.
pub(crate) fn numbers(state: &MocoState) -> BTreeMap<String, Vec<f64>> {
    let flat = |t: &Tensor| {
        t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()
    };
    state.iter().map(|(name, t)| (name.clone(), flat(t))).collect()
}
