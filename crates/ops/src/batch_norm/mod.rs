//! Batch norm over groups of a batch, fused with what follows it in a ResNet: ReLU, or the addition of
//! the shortcut and ReLU.

mod cpu;
mod gpu;
mod kernel;
mod running;
mod saved;
mod types;

use candle_core::Tensor;

use self::cpu::{HostStatistics, Moments, backward, normalize, numbers, statistics};
use self::kernel::Origin;
use self::saved::Statistics;
use self::types::OP;
use crate::backend::{self, on_gpu};
use crate::dense::{by_dtype, dims4, expect_shape, shape};
use crate::error::OpError;

pub use self::running::blend_running_;
pub use self::saved::BatchNormSaved;
pub use self::types::{After, BatchNorm, BatchNormGradients, Running};

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
    if let Some(gpu) = backend::of(OP, x)? {
        let (y, statistics) = gpu::train(&*gpu, x, bn, after)?;
        return Ok((y, BatchNormSaved { groups, statistics: Statistics::Device(statistics) }));
    }
    let (mean, variance) = by_dtype!(OP, x, statistics(x, groups))?;
    let saved = HostStatistics { mean, variance, eps: bn.eps, values_per_channel };
    let by = Moments { origin: Origin::Batch, mean: &saved.mean, inv_std: &saved.inv_std() };
    let y = by_dtype!(OP, x, normalize(x, bn, by, after, [n, c, h, w]))?;
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
    on_gpu!(OP, x, gpu::eval, x, bn, [running_mean, running_var], after);
    let [mean, inv_std] = mean_and_inv_std([running_mean, running_var], bn.eps)?;
    let by = Moments { origin: Origin::Running, mean: &mean, inv_std: &inv_std };
    by_dtype!(OP, x, normalize(x, BatchNorm { groups: 1, ..bn }, by, after, dims))
}

/// The gradients of [`batch_norm_eval`] from its input `x`, its output `y` and the gradient `dy` of its output,
/// all `[N, C, H, W]`, as [`batch_norm_backward`] gives those of training mode. `running` are mean and variance
/// `[C]`; they are read as constants and kept, so the input's gradient is `γ/√(σ² + ε)·g`, as in PyTorch when
/// a `BatchNorm2d` in evaluation mode is trained.
///
/// # Errors
/// If shapes do not fit.
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
    on_gpu!(OP, x, gpu::eval_backward, [x, y, dy], bn, running, after);
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
/// [`After::AddRelu`] only; otherwise it is cheaper to see from `x` where ReLU passed its input.
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
            let gpu = backend::expect(OP, x.device())?;
            gpu::backward(&*gpu, [x, y, dy], bn, statistics, after)
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
