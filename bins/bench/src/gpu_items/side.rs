//! One of the two that do an item: the device, and the CPU as what it is compared with.

use candle_core::{DType, Device, Tensor};

use crate::case::normal;

/// The device that runs an item, and how it stores activations.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) device: Device,
    /// How activations are stored.
    pub(super) dtype: DType,
    /// What activations are rounded to before: that of the device's, on both sides.
    rounded_to: DType,
    is_reference: bool,
}

impl Side {
    /// A device, with activations stored like this.
    pub(super) fn tried(dtype: DType, device: &Device) -> Self {
        Self { device: device.clone(), dtype, rounded_to: dtype, is_reference: false }
    }

    /// The CPU in f32, from numbers rounded to the type that the device stores.
    pub(super) fn reference(dtype: DType) -> Self {
        Self { device: Device::Cpu, dtype: DType::F32, rounded_to: dtype, is_reference: true }
    }

    pub(super) fn rounded_to(&self) -> DType {
        self.rounded_to
    }

    /// Whether this is what a device is compared with.
    pub(super) fn is_reference(&self) -> bool {
        self.is_reference
    }

    /// Numbers around 0 with a deviation of 1, f32.
    pub(super) fn numbers(&self, salt: u64, dims: &[usize]) -> anyhow::Result<Tensor> {
        Ok(normal(dims, salt)?.to_device(&self.device)?)
    }

    /// The same, stored as activations are.
    pub(super) fn rows(&self, salt: u64, dims: &[usize]) -> anyhow::Result<Tensor> {
        let on_cpu = Self { device: Device::Cpu, ..*self };
        let rounded = on_cpu.numbers(salt, dims)?.to_dtype(self.rounded_to)?;
        Ok(rounded.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// Activations `[N, C, H, W]`, channels last in memory.
    pub(super) fn activations(&self, salt: u64, dims: [usize; 4]) -> anyhow::Result<Tensor> {
        let [n, c, h, w] = dims;
        Ok(self.rows(salt, &[n, h, w, c])?.permute((0, 3, 1, 2))?)
    }

    /// Numbers between 0.5 and 1.5, f32.
    pub(super) fn positive(&self, salt: u64, dims: &[usize]) -> anyhow::Result<Tensor> {
        let numbers = self.numbers(salt, dims)?.to_device(&Device::Cpu)?;
        let near_one = ((numbers.tanh()? * 0.5)? + 1.0)?;
        Ok(near_one.to_device(&self.device)?)
    }

    /// Whole numbers.
    pub(super) fn integers(&self, numbers: &[u32]) -> anyhow::Result<Tensor> {
        Ok(Tensor::new(numbers, &Device::Cpu)?.to_device(&self.device)?)
    }

    /// Samples of images.
    pub(super) fn samples(&self, dims: &[usize]) -> anyhow::Result<Tensor> {
        let n: usize = dims.iter().product();
        #[expect(clippy::cast_possible_truncation, reason = "below 251")]
        let samples: Vec<u8> = (0..n).map(|i| ((i * i + 7 * i) % 251) as u8).collect();
        Ok(Tensor::from_vec(samples, dims, &Device::Cpu)?.to_device(&self.device)?)
    }

    pub(super) fn f32s(&self, numbers: &[f32]) -> anyhow::Result<Tensor> {
        Ok(Tensor::new(numbers, &Device::Cpu)?.to_device(&self.device)?)
    }
}
