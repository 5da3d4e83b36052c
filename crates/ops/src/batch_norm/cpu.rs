//! Batch norm on the CPU, f32 and f64.

use candle_core::Tensor;

use super::kernel::{self, Affine, Gradient, Normalization, Origin, Rows};
use super::types::{After, BatchNorm, BatchNormGradients, OP};
use crate::dense::{Dense, channels_last, lend, tensor};
use crate::error::OpError;
use crate::simd::Float;

/// Statistics of a batch.
#[derive(Debug, Clone)]
pub(super) struct HostStatistics {
    /// `[groups, C]`.
    pub(super) mean: Vec<f64>,
    /// Biased, `[groups, C]`.
    pub(super) variance: Vec<f64>,
    pub(super) eps: f64,
    pub(super) values_per_channel: usize,
}

impl HostStatistics {
    /// 1/σ, `[groups, C]`.
    pub(super) fn inv_std(&self) -> Vec<f64> {
        self.variance.iter().map(|v| 1.0 / (v + self.eps).sqrt()).collect()
    }

    /// Mean and unbiased variance of each channel, averaged over the first groups.
    pub(super) fn averages(&self, c: usize, groups: usize) -> [Vec<f64>; 2] {
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        let [n, n_groups] = [self.values_per_channel, groups].map(|count| count as f64);
        let unbiased = n / (n - 1.0);
        let average = |of_groups: &[f64], factor: f64| {
            let of_channel = |channel: usize| {
                let values = of_groups.iter().skip(channel).step_by(c).take(groups);
                values.fold(0.0, |sum, value| sum + value * factor / n_groups)
            };
            (0..c).map(of_channel).collect()
        };
        [average(&self.mean, 1.0), average(&self.variance, unbiased)]
    }
}

pub(super) fn numbers<T: Float>(x: &Tensor) -> Result<Vec<f64>, OpError> {
    let x = Dense::rows(OP, x)?;
    Ok(lend!(OP, T, [x] => x.iter().map(|v| v.f64()).collect()))
}

pub(super) fn statistics<T: Float>(
    x: &Tensor,
    groups: usize,
) -> Result<(Vec<f64>, Vec<f64>), OpError> {
    let c = x.dims()[1];
    let x = Dense::channels_last(OP, x)?;
    Ok(lend!(OP, T, [x] => kernel::moments(x, Rows::new(x.len(), c, groups))))
}

/// The statistics that a forward pass normalizes by: mean and 1/σ, `[groups, C]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments<'a> {
    pub(super) origin: Origin,
    pub(super) mean: &'a [f64],
    pub(super) inv_std: &'a [f64],
}

/// `y = x·scale + shift` from γ, β `[C]` and the moments.
fn affine<T: Float>(
    bn: BatchNorm<'_>,
    Moments { mean, inv_std, .. }: Moments<'_>,
) -> Result<Affine<T>, OpError> {
    let (gamma, beta) = (numbers::<T>(bn.gamma)?, numbers::<T>(bn.beta)?);
    let of_channels = gamma.iter().zip(&beta).cycle();
    let of_groups = mean.iter().zip(inv_std).zip(of_channels);
    let (scale, shift) = of_groups
        .map(|((mean, inv_std), (gamma, beta))| {
            let scale = gamma * inv_std;
            (T::of(scale), T::of(beta - mean * scale))
        })
        .unzip();
    Ok(Affine { scale, shift })
}

pub(super) fn normalize<T: Float>(
    x: &Tensor,
    bn: BatchNorm<'_>,
    by: Moments<'_>,
    after: After<'_>,
    dims: [usize; 4],
) -> Result<Tensor, OpError> {
    let affine = affine::<T>(bn, by)?;
    let x = Dense::channels_last(OP, x)?;
    let rows = Rows::new(dims.iter().product(), dims[1], bn.groups);
    let y = match after {
        After::Nothing => lend!(OP, T, [x] => kernel::affine(x, rows, &affine)),
        After::Relu => lend!(OP, T, [x] => kernel::affine_relu(x, rows, &affine)),
        After::AddRelu(added) => {
            let added = Dense::channels_last(OP, added)?;
            lend!(OP, T, [x, added] => kernel::affine_add_relu(x, added, rows, &affine))
        }
    };
    channels_last(OP, y, dims)
}

pub(super) fn backward<T: Float>(
    [x, y, dy]: [&Tensor; 3],
    bn: BatchNorm<'_>,
    moments: Moments<'_>,
    after: After<'_>,
    dims: [usize; 4],
) -> Result<BatchNormGradients, OpError> {
    let rows = Rows::new(dims.iter().product(), dims[1], bn.groups);
    let gamma = numbers::<T>(bn.gamma)?;
    let Moments { origin, mean, inv_std } = moments;
    let by = Normalization { origin, mean, inv_std, gamma: &gamma };
    let [x, dy] = [Dense::channels_last(OP, x)?, Dense::channels_last(OP, dy)?];
    let (dx, added, sums) = match after {
        After::Nothing => lend!(OP, T, [x, dy] => {
            let (dx, sums) = kernel::gradients(x, &Gradient::Plain(dy), rows, by);
            (dx, None, sums)
        }),
        After::Relu => {
            let affine = affine::<T>(bn, moments)?;
            lend!(OP, T, [x, dy] => {
                let (dx, sums) = kernel::gradients(x, &Gradient::OfRelu(dy, &affine), rows, by);
                (dx, None, sums)
            })
        }
        After::AddRelu(_) => {
            let y = Dense::channels_last(OP, y)?;
            lend!(OP, T, [x, y, dy] => {
                let (g, sums) = kernel::masked_gradient_sums([x, y, dy], rows, by);
                let dx = kernel::input_gradient(x, &Gradient::Plain(&g), rows, by, &sums);
                (dx, Some(g), sums)
            })
        }
    };
    let over_groups = |values: &[f64]| -> Vec<T> {
        let c = dims[1];
        (0..c).map(|i| T::of(values.iter().skip(i).step_by(c).sum())).collect()
    };
    Ok(BatchNormGradients {
        x: channels_last(OP, dx, dims)?,
        added: added.map(|g| channels_last(OP, g, dims)).transpose()?,
        gamma: tensor(OP, over_groups(&sums.with_x_hat), dims[1])?,
        beta: tensor(OP, over_groups(&sums.plain), dims[1])?,
    })
}
