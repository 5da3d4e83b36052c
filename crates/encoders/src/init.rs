//! Initial values as torchvision and PyTorch draw them, from streams of our own.

use candle_core::{DType, Device, Tensor};
use moco_params::{ParamStore, Role};
use moco_rng::{At, Purpose, Seed, Stream};

use crate::encoder::EncoderError;

/// How the weight `[c_out, c_in, k, k]` of a convolution starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConvInit {
    /// Normal with variance 2/(c_out·k²): torchvision's ResNets start all their convolutions by
    /// `kaiming_normal_(mode="fan_out", nonlinearity="relu")`.
    FanOutNormal,
    /// Uniform in ±1/√(c_in·k²), which is variance 1/(3·c_in·k²): what PyTorch's `nn.Conv2d` starts with
    /// (`kaiming_uniform_(a=√5)`) where nothing initializes it again.
    FanInUniform,
}

/// Fills a store; each tensor has a stream of its own, numbered in order of creation.
#[derive(Debug)]
pub(crate) struct Initializer {
    seed: Seed,
    dtype: DType,
    first_stream: u64,
    pub(crate) store: ParamStore,
}

/// Streams of the head start here, so that a deeper backbone does not move them.
pub(crate) const HEAD_STREAMS: u64 = 1 << 32;

impl Initializer {
    pub(crate) fn new(seed: Seed, dtype: DType, first_stream: u64) -> Self {
        Self { seed, dtype, first_stream, store: ParamStore::default() }
    }

    /// Convolution `[c_out, c_in, k, k]`.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        dims: [usize; 4],
        init: ConvInit,
    ) -> Result<(), EncoderError> {
        let [c_out, c_in, height, width] = dims;
        let name = format!("{name}.weight");
        match init {
            ConvInit::FanOutNormal => {
                let std = (2.0 / count(c_out * height * width)).sqrt();
                self.parameter(&name, &dims, |stream| std * stream.normal())
            }
            ConvInit::FanInUniform => {
                let bound = 1.0 / count(c_in * height * width).sqrt();
                self.parameter(&name, &dims, |stream| stream.range(-bound, bound))
            }
        }
    }

    /// Batch norm: γ = 1, β = 0, running mean 0, running variance 1.
    pub(crate) fn batch_norm(&mut self, name: &str, channels: usize) -> Result<(), EncoderError> {
        self.parameter(&format!("{name}.weight"), &[channels], |_| 1.0)?;
        self.parameter(&format!("{name}.bias"), &[channels], |_| 0.0)?;
        let buffer = |value| constant(value, channels, self.dtype);
        let (mean, variance) = (buffer(0.0)?, buffer(1.0)?);
        let batches = Tensor::new(0_i64, &Device::Cpu).map_err(|e| candle(name, e))?;
        self.store.insert(format!("{name}.running_mean"), mean, Role::Buffer)?;
        self.store.insert(format!("{name}.running_var"), variance, Role::Buffer)?;
        self.store.insert(format!("{name}.num_batches_tracked"), batches, Role::Buffer)?;
        Ok(())
    }

    /// Linear layer: weight and bias uniform in ±1/√c_in (PyTorch's `nn.Linear`).
    pub(crate) fn linear(
        &mut self,
        name: &str,
        c_out: usize,
        c_in: usize,
    ) -> Result<(), EncoderError> {
        let bound = 1.0 / count(c_in).sqrt();
        let uniform = |stream: &mut Stream| stream.range(-bound, bound);
        self.parameter(&format!("{name}.weight"), &[c_out, c_in], uniform)?;
        self.parameter(&format!("{name}.bias"), &[c_out], uniform)
    }

    fn parameter(
        &mut self,
        name: &str,
        dims: &[usize],
        mut draw: impl FnMut(&mut Stream) -> f64,
    ) -> Result<(), EncoderError> {
        let index = self.first_stream + self.store.iter().count() as u64;
        let mut stream = self.seed.stream(Purpose::Init, At::index(index));
        let values: Vec<f64> = (0..dims.iter().product()).map(|_| draw(&mut stream)).collect();
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu)
            .and_then(|t| t.to_dtype(self.dtype))
            .map_err(|e| candle(name, e))?;
        Ok(self.store.insert(name, tensor, Role::Parameter)?)
    }
}

fn constant(value: f64, len: usize, dtype: DType) -> Result<Tensor, EncoderError> {
    Tensor::from_vec(vec![value; len], len, &Device::Cpu)
        .and_then(|t| t.to_dtype(dtype))
        .map_err(|e| candle("a constant", e))
}

fn candle(what: &str, source: candle_core::Error) -> EncoderError {
    EncoderError::Candle { what: format!("initial value of {what}"), source }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}
