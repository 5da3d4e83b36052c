//! Batch norm over many blocks, with ends that fill none, against its formulas written as loops.

use candle_core::{DType, Device, Tensor};
use moco_ops::{After, BatchNorm, batch_norm_backward, batch_norm_train};

use crate::common::averages;

const EPS: f64 = 1e-5;

/// As f64, which they are in to the last bit.
fn scattered(salt: u64, dims: &[usize]) -> Tensor {
    crate::common::scattered(salt, dims).to_dtype(DType::F64).unwrap()
}

/// One channel of one group.
fn values(x: &Tensor, groups: usize, group: usize, channel: usize) -> Vec<f64> {
    let n = x.dims()[0] / groups;
    let part = x.narrow(0, group * n, n).and_then(|x| x.narrow(1, channel, 1)).unwrap();
    part.to_dtype(DType::F64).and_then(|x| x.flatten_all()?.to_vec1()).unwrap()
}

fn mean_of(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Mean and biased variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = mean_of(values.iter().copied());
    (mean, mean_of(values.iter().map(|v| (v - mean).powi(2))))
}

fn assert_all_close(what: &str, got: &[f64], expected: impl Iterator<Item = f64>, tolerance: f64) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error < tolerance, "{what}, number {i}: {got}, expected {expected}");
    }
}

fn check(dims: [usize; 4], groups: usize, after: After<'_>, what: &str) {
    let c = dims[1];
    let (x, dy) = (scattered(1, &dims), scattered(2, &dims));
    let (gamma, beta) = (scattered(3, &[c]), scattered(4, &[c]));
    let bn = BatchNorm { gamma: &gamma, beta: &beta, eps: EPS, groups };
    let (y, saved) = batch_norm_train(&x, bn, after).unwrap();
    let gradients = batch_norm_backward(&x, &y, &dy, bn, &saved, after).unwrap();
    let [gamma, beta, of_gamma, of_beta] = [&gamma, &beta, &gradients.gamma, &gradients.beta]
        .map(|numbers| numbers.to_vec1::<f64>().unwrap());
    for channel in (0..c).step_by(c.div_ceil(20)) {
        let (mut sum_g, mut sum_product) = (0.0, 0.0);
        for group in 0..groups {
            let of = |x: &Tensor| values(x, groups, group, channel);
            let (x, dy) = (of(&x), of(&dy));
            let (mean, variance) = moments(&x);
            let inv_std = 1.0 / (variance + EPS).sqrt();
            let x_hat: Vec<f64> = x.iter().map(|x| (x - mean) * inv_std).collect();
            let mut expected: Vec<f64> =
                x_hat.iter().map(|x_hat| x_hat * gamma[channel] + beta[channel]).collect();
            if let After::AddRelu(added) = after {
                expected.iter_mut().zip(of(added)).for_each(|(y, added)| *y += added);
            }
            let mut g = dy;
            if !matches!(after, After::Nothing) {
                g.iter_mut().zip(&expected).for_each(|(g, y)| *g *= f64::from(*y > 0.0));
                expected.iter_mut().for_each(|y| *y = y.max(0.0));
            }
            assert_all_close(&format!("{what}: y"), &of(&y), expected.into_iter(), 1e-11);
            let mean_g = mean_of(g.iter().copied());
            let mean_product = mean_of(g.iter().zip(&x_hat).map(|(g, x_hat)| g * x_hat));
            let n = g.len() as f64;
            (sum_g, sum_product) = (sum_g + mean_g * n, sum_product + mean_product * n);
            let slope = gamma[channel] * inv_std;
            let dx =
                g.iter().zip(&x_hat).map(|(g, x_hat)| slope * (g - mean_g - x_hat * mean_product));
            assert_all_close(&format!("{what}: dx"), &of(&gradients.x), dx, 1e-11);
            if let Some(added) = &gradients.added {
                assert_all_close(&format!("{what}: added"), &of(added), g.into_iter(), 1e-300);
            }
        }
        let got = [of_gamma[channel], of_beta[channel]];
        assert_all_close(&format!("{what}: γ, β"), &got, [sum_product, sum_g].into_iter(), 1e-9);
    }
}

#[test]
fn blocks_of_any_width_add_up() {
    for (dims, groups) in [
        ([4, 24, 61, 60], 2),
        ([8, 3, 53, 51], 1),
        ([6, 17, 37, 41], 3),
        ([2, 1500, 7, 7], 1),
        ([2, 64, 50, 51], 2),
    ] {
        let added = scattered(5, &dims);
        for after in [After::Nothing, After::Relu, After::AddRelu(&added)] {
            let what = match after {
                After::Nothing => "nothing",
                After::Relu => "relu",
                After::AddRelu(_) => "add and relu",
            };
            check(dims, groups, after, &format!("{dims:?}, {what}"));
        }
    }
}

/// The statistics of f32 numbers, relative to those in f64.
fn check_statistics(what: &str, x: &Tensor, tolerance: f64) {
    let single = x.to_dtype(DType::F32).unwrap();
    let one = Tensor::ones(x.dims()[1], DType::F32, &Device::Cpu).unwrap();
    let bn = BatchNorm { gamma: &one, beta: &one, eps: EPS, groups: 1 };
    let (_, saved) = batch_norm_train(&single, bn, After::Nothing).unwrap();
    let [means, variances] = averages(&saved, x.dims()[1], 1);
    for (channel, (mean, unbiased)) in means.into_iter().zip(variances).enumerate() {
        let values = values(&single, 1, 0, channel);
        let (expected_mean, expected) = moments(&values);
        let n = values.len() as f64;
        let variance = unbiased * (n - 1.0) / n;
        let mean_error = (mean - expected_mean).abs() / expected.sqrt();
        assert!(mean_error < tolerance, "{what}: mean {mean}, expected {expected_mean}");
        let error = (variance / expected - 1.0).abs();
        assert!(error < tolerance, "{what}: variance {variance}, expected {expected}");
    }
}

#[test]
fn statistics_in_f32_hold_up_far_from_zero_and_after_a_start_unlike_the_rest() {
    let dims = [8, 16, 50, 50];
    let spread = (scattered(1, &dims) * 3f64.sqrt()).unwrap();
    check_statistics("mean 1000, deviation 1", &(&spread + 1000.0).unwrap(), 3e-7);
    // One image, then one row of pixels, a thousand deviations away from all that follows.
    for axis in [0, 2] {
        let far = (spread.narrow(axis, 0, 1).unwrap() - 1000.0).unwrap();
        let rest = spread.narrow(axis, 1, dims[axis] - 1).unwrap();
        let x = Tensor::cat(&[&far, &rest], axis).unwrap();
        check_statistics(&format!("a far start along axis {axis}"), &x, 1e-6);
    }
}
