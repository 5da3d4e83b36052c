//! Running statistics, which evaluation normalizes by.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor};

use super::gpu;
use super::saved::{BatchNormSaved, Statistics};
use super::types::{OP, Running};
use crate::backend;
use crate::dense::{by_dtype, expect_integers, expect_shape};
use crate::error::{InOp, OpError};
use crate::simd::Float;
use crate::update::{change, expect_contiguous, expect_own_memory};

/// Blends a batch's statistics into the running mean and variance,
/// `running ← (1 − bn_momentum)·running + bn_momentum·batch`, and counts the batch (PyTorch `BatchNorm2d` in
/// training mode, whose `batch` is the mean and the unbiased variance); all three are changed in place. Of
/// the batch's groups the first `groups` are averaged.
///
/// # Errors
/// If the shapes do not fit, a tensor is strided or shares its memory with another, or there are not that
/// many groups; then nothing was changed.
pub fn blend_running_(
    saved: &BatchNormSaved,
    running: Running<'_>,
    groups: usize,
    bn_momentum: f64,
) -> Result<(), OpError> {
    if groups == 0 || groups > saved.groups {
        #[expect(clippy::cast_precision_loss, reason = "for a message")]
        let got = groups as f64;
        let expected = "between 1 and the number of the batch's groups";
        return Err(OpError::Argument { op: OP, argument: "groups", expected, got });
    }
    let Running { mean, var, num_batches_tracked } = running;
    let named = [("running_mean", mean), ("running_var", var)];
    let counted = ("num_batches_tracked", num_batches_tracked);
    let c = match &saved.statistics {
        Statistics::Host(statistics) => statistics.mean.len() / saved.groups,
        Statistics::Device(statistics) => statistics.channels(),
    };
    for (name, x) in named {
        expect_shape(OP, name, x, &[c])?;
        expect_contiguous(OP, name, x)?;
    }
    expect_shape(OP, counted.0, num_batches_tracked, &[])?;
    expect_integers(OP, counted.0, num_batches_tracked, DType::I64)?;
    expect_own_memory(OP, named.into_iter().chain([counted]), std::iter::empty())?;
    match &saved.statistics {
        Statistics::Device(statistics) => {
            let gpu = backend::expect(OP, mean.device())?;
            gpu::blend(&*gpu, statistics, running, groups, bn_momentum)
        }
        Statistics::Host(statistics) => {
            let batch = statistics.averages(c, groups);
            for ((_, x), batch) in named.into_iter().zip(batch) {
                by_dtype!(OP, x, blend(x, &batch, bn_momentum))?;
            }
            num_batches_tracked.inplace_op1(&CountOne).in_op(OP)
        }
    }
}

fn blend<T: Float>(running: &Tensor, batch: &[f64], bn_momentum: f64) -> Result<(), OpError> {
    let (old, new) = (T::of(1.0 - bn_momentum), T::of(bn_momentum));
    change(OP, running, |running: &mut [T]| {
        for (running, batch) in running.iter_mut().zip(batch) {
            *running = *running * old + T::of(*batch) * new;
        }
        Ok(())
    })
}

/// Adds 1 to a number of i64.
struct CountOne;

impl InplaceOp1 for CountOne {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        if let CpuStorage::I64(numbers) = storage {
            numbers.iter_mut().skip(layout.start_offset()).take(1).for_each(|count| *count += 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::cpu::HostStatistics;
    use super::*;

    /// Two channels; each group of two values per channel: 0 and 2, then 4 and 8.
    fn saved() -> BatchNormSaved {
        let statistics = HostStatistics {
            mean: vec![1.0, 10.0, 6.0, 20.0],
            variance: vec![1.0, 2.0, 4.0, 0.0],
            eps: 0.0,
            values_per_channel: 2,
        };
        BatchNormSaved { groups: 2, statistics: Statistics::Host(statistics) }
    }

    fn counter(count: i64) -> Tensor {
        Tensor::new(count, &Device::Cpu).unwrap()
    }

    fn vector(values: [f64; 2]) -> Tensor {
        Tensor::new(&values, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_first_groups_are_averaged_and_the_variance_is_unbiased() {
        for (groups, expected_mean, expected_var) in
            [(1, [0.75 + 0.25, 7.5 + 2.5], [0.5, 1.0]), (2, [0.75 + 0.875, 11.25], [1.25, 0.5])]
        {
            let (mean, var) = (vector([1.0, 10.0]), vector([0.0, 0.0]));
            let num_batches_tracked = &counter(7);
            let running = Running { mean: &mean, var: &var, num_batches_tracked };
            blend_running_(&saved(), running, groups, 0.25).unwrap();
            assert_eq!(num_batches_tracked.to_scalar::<i64>().unwrap(), 8);
            assert_eq!(mean.to_vec1::<f64>().unwrap(), expected_mean);
            assert_eq!(var.to_vec1::<f64>().unwrap(), expected_var);
        }
    }

    /// A tensor's own arithmetic, which rounds after each operation.
    #[test]
    fn has_the_bits_of_arithmetic_on_tensors() {
        for dtype in [DType::F32, DType::F64] {
            let numbers: Vec<f64> = (0..999_u32).map(|i| (f64::from(i) * 0.7).sin()).collect();
            let statistics = HostStatistics {
                mean: numbers.clone(),
                variance: vec![0.0; 999],
                eps: 0.0,
                values_per_channel: 2,
            };
            let saved = BatchNormSaved { groups: 1, statistics: Statistics::Host(statistics) };
            let batch = Tensor::new(&numbers[..], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let old = batch.cos().unwrap();
            let expected = ((&old * (1.0 - 0.1)).unwrap() + (&batch * 0.1).unwrap()).unwrap();
            let (var, num_batches_tracked) = (&old.zeros_like().unwrap(), &counter(0));
            let running = Running { mean: &old, var, num_batches_tracked };
            blend_running_(&saved, running, 1, 0.1).unwrap();
            let bits = |x: &Tensor| -> Vec<u64> {
                let wide = x.to_dtype(DType::F64).unwrap();
                wide.to_vec1::<f64>().unwrap().iter().map(|v| v.to_bits()).collect()
            };
            assert_eq!(bits(&old), bits(&expected));
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_changed() {
        let (mean, var) = (&vector([1.0, 2.0]), &vector([3.0, 4.0]));
        let (three, count) = (&Tensor::new(&[1.0; 3], &Device::Cpu).unwrap(), &counter(7));
        let single = &Tensor::new(7_f32, &Device::Cpu).unwrap();
        for (running, groups, expected) in [
            ([mean, var, count], 3, "batch_norm: `groups` = 3, expected between 1 and the number"),
            ([mean, var, count], 0, "batch_norm: `groups` = 0, expected between 1 and the number"),
            ([mean, three, count], 1, "batch_norm: `running_var` has shape [3], expected [2]"),
            ([mean, mean, count], 1, "batch_norm: `running_var` shares its memory"),
            ([mean, var, single], 1, "batch_norm: `num_batches_tracked` is F32, expected i64"),
            ([mean, var, mean], 1, "batch_norm: `num_batches_tracked` has shape [2], expected []"),
        ] {
            let [mean, var, num_batches_tracked] = running;
            let running = Running { mean, var, num_batches_tracked };
            let error = blend_running_(&saved(), running, groups, 0.1).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(mean.to_vec1::<f64>().unwrap(), [1.0, 2.0]);
        assert_eq!(count.to_scalar::<i64>().unwrap(), 7);
    }
}
