//! The model, the views and the device of a measured step.

use candle_core::{DType, Device};
use moco::{Batch, EncoderWithHead, MechanismKind, Moco, MocoConfig, Queue, QueuePrecision};
use moco_encoders::{
    Arch, BnConfig, Encoder as _, HeadKind, ResNet, ResNetConfig, RunningStats, Stem,
};
use moco_ops::ImageUpload;
use moco_optim::SgdConfig;
use moco_rng::{At, Purpose, Seed};

pub(super) const SEED: Seed = Seed(0);
pub(super) const LR: f64 = 0.03;
pub(super) const SGD: SgdConfig = SgdConfig { sgd_momentum: 0.9, weight_decay: 1e-4 };
pub(super) const KEY_MOMENTUM: f64 = 0.999;
pub(super) const TEMPERATURE: f64 = 0.2;
pub(super) const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub(super) const STD: [f32; 3] = [0.229, 0.224, 0.225];
pub(super) const DIM: usize = 128;

/// The sizes of a step, and where it is done.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) arch: Arch,
    pub(super) size: usize,
    pub(super) batch_size: usize,
    pub(super) queue_size: usize,
    /// Of activations.
    pub(super) dtype: DType,
    pub(super) device: Device,
}

impl Setup {
    pub(super) fn moco(&self) -> anyhow::Result<Moco> {
        let config = MocoConfig {
            mechanism: MechanismKind::Queue,
            queue_size: self.queue_size,
            key_momentum: KEY_MOMENTUM,
            temperature: TEMPERATURE,
            dim: DIM,
            symmetric: false,
            shuffle_bn: true,
            queue_precision: QueuePrecision::AsParameters,
        };
        Ok(Moco::new(Box::new(self.encoder()?), HeadKind::Mlp, config, SGD, SEED)?)
    }

    /// Only f_q, for phases that are called one by one.
    pub(super) fn branch(&self) -> anyhow::Result<EncoderWithHead> {
        Ok(EncoderWithHead::new(Box::new(self.encoder()?), HeadKind::Mlp, DIM, SEED)?)
    }

    pub(super) fn queue(&self) -> anyhow::Result<Queue> {
        let queue = Queue::random(SEED, DIM, self.queue_size, DType::F32)?;
        Ok(queue.to_device(&self.device)?)
    }

    fn encoder(&self) -> anyhow::Result<ResNet> {
        // PyTorch on one device has no other batch norm than that of the whole batch.
        let bn = BnConfig { groups: 1, running: RunningStats::First };
        let config = ResNetConfig { arch: self.arch, stem: Stem::ImageNet, width: 1.0, bn };
        let mut encoder = ResNet::new(config, SEED, DType::F32)?;
        encoder.params_mut().to_device(&self.device)?;
        Ok(encoder)
    }

    /// A batch of noise, brought to the device as the pipeline brings it.
    pub(super) fn views(&self) -> anyhow::Result<Batch> {
        let upload = ImageUpload::new(&self.device, [MEAN, STD], self.dtype)?;
        let view = |view| {
            let images = (0..self.batch_size as u64).flat_map(|i| noise(self.size, i, view));
            let arriving =
                upload.start(images.collect(), [self.batch_size, self.size, self.size], Vec::new());
            anyhow::Ok(upload.finish(arriving?)?)
        };
        Ok(Batch { im_q: view(0)?, im_k: view(1)?, sample_indices: Vec::new() })
    }

    /// The driver's name of the device.
    pub(super) fn device_name(&self) -> anyhow::Result<String> {
        Ok(match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device.cuda_stream().context().name()?,
            other => format!("{:?}", other.location()).to_lowercase(),
        })
    }
}

/// An image of `size` pixels square, red first.
pub(super) fn noise(size: usize, index: u64, view: u32) -> Vec<u8> {
    let mut stream = SEED.stream(Purpose::Augment, At { epoch: 0, index, view });
    let words = (0..(3 * size * size).div_ceil(4)).flat_map(|_| stream.next_u32().to_le_bytes());
    words.take(3 * size * size).collect()
}
