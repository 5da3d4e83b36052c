//! Batch norm over groups of a batch, fused with what follows it in a ResNet: ReLU, or the addition of
//! the shortcut and ReLU.

mod kernel;
mod running;

use candle_core::Tensor;

use self::kernel::{Affine, Gradient, Normalization, Origin, Rows};
use crate::dense::{Dense, by_dtype, channels_last, dims4, expect_shape, lend, shape, tensor};
use crate::error::OpError;
use crate::gpu::{self, on_gpu};
use crate::simd::Float;

pub use self::running::{Running, blend_running_};

const OP: &str = "batch_norm";

/// What a batch norm is made of.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Scale γ `[C]`.
    pub gamma: &'a Tensor,
    /// Shift β `[C]`.
    pub beta: &'a Tensor,
    /// Added to the variance; 1e-5 in PyTorch.
    pub eps: f64,
    /// Contiguous parts of the batch with statistics of their own (virtual devices); divides N.
    pub groups: usize,
}

/// What follows the normalization in the same pass.
#[derive(Debug, Clone, Copy)]
pub enum After<'a> {
    /// Nothing.
    Nothing,
    /// ReLU.
    Relu,
    /// Addition of this tensor `[N, C, H, W]`, then ReLU.
    AddRelu(&'a Tensor),
}

/// Statistics of a training-mode forward pass, for its backward pass and the running statistics.
#[derive(Debug, Clone)]
pub struct BatchNormSaved {
    groups: usize,
    statistics: Statistics,
}

/// Statistics where the activations are.
#[derive(Debug, Clone)]
enum Statistics {
    Host(HostStatistics),
    Device(gpu::batch_norm::Statistics),
}

#[derive(Debug, Clone)]
struct HostStatistics {
    /// `[groups, C]`.
    mean: Vec<f64>,
    /// Biased, `[groups, C]`.
    variance: Vec<f64>,
    eps: f64,
    values_per_channel: usize,
}

/// Gradients of a batch norm.
#[derive(Debug)]
pub struct BatchNormGradients {
    /// Of the input `[N, C, H, W]`.
    pub x: Tensor,
    /// Of the tensor in [`After::AddRelu`] `[N, C, H, W]`.
    pub added: Option<Tensor>,
    /// Of γ `[C]`.
    pub gamma: Tensor,
    /// Of β `[C]`.
    pub beta: Tensor,
}

impl BatchNormSaved {
    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }
}

impl HostStatistics {
    fn inv_std(&self) -> Vec<f64> {
        self.variance.iter().map(|v| 1.0 / (v + self.eps).sqrt()).collect()
    }
}

/// Normalizes `x` `[N, C, H, W]` by the statistics of each group (PyTorch `BatchNorm2d` in
/// training mode, one call per group).
///
/// # Errors
/// If shapes do not fit, the groups do not divide the batch, or a group has one value per channel.
pub fn batch_norm_train(
    x: &Tensor,
    bn: BatchNorm<'_>,
    after: After<'_>,
) -> Result<(Tensor, BatchNormSaved), OpError> {
    let [n, c, h, w] = check(x, bn, after)?;
    if !n.is_multiple_of(bn.groups) {
        return Err(OpError::Shape {
            op: OP,
            tensor: "x",
            expected: format!("a batch that {} groups divide", bn.groups),
            got: x.dims().to_vec(),
        });
    }
    let values_per_channel = n / bn.groups * h * w;
    if values_per_channel < 2 {
        return Err(OpError::Shape {
            op: OP,
            tensor: "x",
            expected: "more than one value per channel and group".into(),
            got: x.dims().to_vec(),
        });
    }
    let groups = bn.groups;
    if let Some(gpu) = gpu::of(OP, x)? {
        let (y, statistics) = gpu::batch_norm::train(&*gpu, x, bn, after)?;
        return Ok((y, BatchNormSaved { groups, statistics: Statistics::Device(statistics) }));
    }
    let (mean, variance) = by_dtype!(OP, x, statistics(x, groups))?;
    let saved = HostStatistics { mean, variance, eps: bn.eps, values_per_channel };
    let inv_std = saved.inv_std();
    let y = by_dtype!(OP, x, normalize(x, bn, (&saved.mean, &inv_std), after, [n, c, h, w]))?;
    Ok((y, BatchNormSaved { groups, statistics: Statistics::Host(saved) }))
}

/// Normalizes by running statistics `[C]` (PyTorch `BatchNorm2d` in evaluation mode); `bn.groups` is
/// not looked at.
///
/// # Errors
/// If shapes do not fit.
pub fn batch_norm_eval(
    x: &Tensor,
    bn: BatchNorm<'_>,
    running_mean: &Tensor,
    running_var: &Tensor,
    after: After<'_>,
) -> Result<Tensor, OpError> {
    let dims = check(x, bn, after)?;
    expect_shape(OP, "running_mean", running_mean, &dims[1..2])?;
    expect_shape(OP, "running_var", running_var, &dims[1..2])?;
    on_gpu!(OP, x, batch_norm::eval, x, bn, [running_mean, running_var], after);
    let [mean, inv_std] = mean_and_inv_std([running_mean, running_var], bn.eps)?;
    by_dtype!(OP, x, normalize(x, BatchNorm { groups: 1, ..bn }, (&mean, &inv_std), after, dims))
}

/// The gradients of [`batch_norm_eval`] from its input `x`, its output `y` and the gradient `dy` of its output,
/// all `[N, C, H, W]`, as [`batch_norm_backward`] gives those of training mode. `running` are mean and variance
/// `[C]`; they are read as constants and kept, so the input's gradient is `γ/√(σ² + ε)·g`, as in PyTorch when
/// a `BatchNorm2d` in evaluation mode is trained.
///
/// # Errors
/// If shapes do not fit, or the tensors are on a GPU, which has no kernel for this.
pub fn batch_norm_eval_backward(
    [x, y, dy]: [&Tensor; 3],
    bn: BatchNorm<'_>,
    running: [&Tensor; 2],
    after: After<'_>,
) -> Result<BatchNormGradients, OpError> {
    let dims = check(x, bn, after)?;
    for (name, tensor) in [("y", y), ("dy", dy)] {
        expect_shape(OP, name, tensor, &dims)?;
    }
    for (name, tensor) in ["running_mean", "running_var"].into_iter().zip(running) {
        expect_shape(OP, name, tensor, &dims[1..2])?;
    }
    if gpu::of(OP, x)?.is_some() {
        return Err(OpError::OnlyCpu { op: "batch_norm_eval_backward" });
    }
    let [mean, inv_std] = mean_and_inv_std(running, bn.eps)?;
    let by = Moments { origin: Origin::Running, mean: &mean, inv_std: &inv_std };
    by_dtype!(OP, x, backward([x, y, dy], BatchNorm { groups: 1, ..bn }, by, after, dims))
}

/// Mean and 1/√(σ² + ε) of running statistics, `[C]` each.
fn mean_and_inv_std([mean, var]: [&Tensor; 2], eps: f64) -> Result<[Vec<f64>; 2], OpError> {
    let mean = by_dtype!(OP, mean, numbers(mean))?;
    let var = by_dtype!(OP, var, numbers(var))?;
    Ok([mean, var.into_iter().map(|var| 1.0 / (var + eps).sqrt()).collect()])
}

/// The gradients of [`batch_norm_train`] from its input `x`, its output `y` and the gradient `dy` of its
/// output, all `[N, C, H, W]`; ReLU's gradient at 0 is 0, as in PyTorch. The numbers of `y` are read with
/// [`After::AddRelu`] only: else it is cheaper to tell from `x` where ReLU let its input through.
///
/// # Errors
/// If shapes do not fit.
pub fn batch_norm_backward(
    x: &Tensor,
    y: &Tensor,
    dy: &Tensor,
    bn: BatchNorm<'_>,
    saved: &BatchNormSaved,
    after: After<'_>,
) -> Result<BatchNormGradients, OpError> {
    let dims = check(x, bn, after)?;
    expect_shape(OP, "y", y, &dims)?;
    expect_shape(OP, "dy", dy, &dims)?;
    match &saved.statistics {
        Statistics::Host(statistics) => {
            // The groups of the forward pass.
            let bn = BatchNorm { groups: saved.groups, ..bn };
            let (mean, inv_std) = (&statistics.mean, &statistics.inv_std());
            let by = Moments { origin: Origin::Batch, mean, inv_std };
            by_dtype!(OP, x, backward([x, y, dy], bn, by, after, dims))
        }
        Statistics::Device(statistics) => {
            let gpu = gpu::expect(OP, x.device())?;
            gpu::batch_norm::backward(&*gpu, [x, y, dy], bn, statistics, after)
        }
    }
}

fn check(x: &Tensor, bn: BatchNorm<'_>, after: After<'_>) -> Result<[usize; 4], OpError> {
    let dims = dims4(OP, "x", x)?;
    if dims[1] == 0 || bn.groups == 0 {
        return Err(shape(OP, "x", "at least one channel and one group", x.dims()));
    }
    expect_shape(OP, "gamma", bn.gamma, &dims[1..2])?;
    expect_shape(OP, "beta", bn.beta, &dims[1..2])?;
    if let After::AddRelu(added) = after {
        expect_shape(OP, "added", added, &dims)?;
    }
    Ok(dims)
}

fn numbers<T: Float>(x: &Tensor) -> Result<Vec<f64>, OpError> {
    let x = Dense::rows(OP, x)?;
    Ok(lend!(OP, T, [x] => x.iter().map(|v| v.f64()).collect()))
}

fn statistics<T: Float>(x: &Tensor, groups: usize) -> Result<(Vec<f64>, Vec<f64>), OpError> {
    let c = x.dims()[1];
    let x = Dense::channels_last(OP, x)?;
    Ok(lend!(OP, T, [x] => kernel::moments(x, Rows::new(x.len(), c, groups))))
}

/// `y = x·scale + shift` from γ, β `[C]` and the mean and 1/σ `[groups, C]`.
fn affine<T: Float>(
    bn: BatchNorm<'_>,
    mean: &[f64],
    inv_std: &[f64],
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

/// Mean and 1/σ: `[groups, C]`.
fn normalize<T: Float>(
    x: &Tensor,
    bn: BatchNorm<'_>,
    (mean, inv_std): (&[f64], &[f64]),
    after: After<'_>,
    dims: [usize; 4],
) -> Result<Tensor, OpError> {
    let affine = affine::<T>(bn, mean, inv_std)?;
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

/// What a forward pass normalized by: mean and 1/σ, `[groups, C]`.
#[derive(Debug, Clone, Copy)]
struct Moments<'a> {
    origin: Origin,
    mean: &'a [f64],
    inv_std: &'a [f64],
}

fn backward<T: Float>(
    [x, y, dy]: [&Tensor; 3],
    bn: BatchNorm<'_>,
    Moments { origin, mean, inv_std }: Moments<'_>,
    after: After<'_>,
    dims: [usize; 4],
) -> Result<BatchNormGradients, OpError> {
    let rows = Rows::new(dims.iter().product(), dims[1], bn.groups);
    let gamma = numbers::<T>(bn.gamma)?;
    let by = Normalization { origin, mean, inv_std, gamma: &gamma };
    let [x, dy] = [Dense::channels_last(OP, x)?, Dense::channels_last(OP, dy)?];
    let (dx, added, sums) = match after {
        After::Nothing => lend!(OP, T, [x, dy] => {
            let (dx, sums) = kernel::gradients(x, &Gradient::Plain(dy), rows, by);
            (dx, None, sums)
        }),
        After::Relu => {
            let affine = affine::<T>(bn, mean, inv_std)?;
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
