//! How images become batches: the parts of a plan that the data path reads.

use candle_core::{DType, Device};
use moco_augment::Exif;

/// The device of the batches, and the type of the activations that they become.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The encoder's device.
    pub device: Device,
    /// f32, or bf16 on a GPU.
    pub dtype: DType,
}

impl Placement {
    /// f32 on the CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32 }
    }
}

/// The preprocessing of an image for the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct InputPlan {
    /// Side of a view in pixels.
    pub image_size: u32,
    /// Mean of each channel, of pixels scaled to 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
    /// Whether pictures are turned as their orientation tags say.
    pub exif: Exif,
    /// Which view is the key's.
    pub pairing: Pairing,
    /// The device that finishes training views.
    pub finish_on: FinishOn,
}

/// The device that finishes a training view after cropping: color jitter, grayscale, blur and flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishOn {
    /// In the decoders' threads.
    Cpu,
    /// On the GPU that trains, a batch at a time, with the bits of exact fidelity; for machines whose
    /// processors cannot feed it.
    Gpu,
}

/// Which view is the key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Two views of the same image: the method.
    SameImage,
    /// The key's view comes from another image of the batch: a control that must not learn.
    Shuffled,
}

impl Pairing {
    /// At which place of a batch of `n` the image lies whose `view` goes to `place`; view 0 is the query's,
    /// 1 the key's.
    #[must_use]
    pub fn place_of(self, view: usize, place: usize, n: usize) -> usize {
        match (self, view) {
            (Self::Shuffled, 1) => (place + 1) % n,
            _ => place,
        }
    }
}

/// Workers of the data stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerPlan {
    /// Threads that read shards; also the number of lanes.
    pub readers: usize,
    /// Threads that decode and draw views.
    pub decoders: usize,
}
