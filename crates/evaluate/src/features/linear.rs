//! The linear classifier on frozen features.

use candle_core::{DType, Device, Tensor};
use moco_ops::{linear, linear_backward};
use moco_optim::{Optimizer as _, Schedule, Sgd, SgdConfig, learning_rate};
use moco_params::{Gradients, ParamStore, Role};
use moco_rng::{At, Purpose, Seed};

use super::blocks::{block_rows, ranges};
use super::standardization::Standardization;
use super::{FeatureSet, count};
use crate::error::{During, EvaluateError};
use crate::measures::top_k_correct;
use crate::progress::Progress;

/// Settings of the training (official `main_lincls.py:55-98`: lr 30, momentum 0.9, no weight decay,
/// batch 256, 100 epochs, × 0.1 at 60 and 80). Here features are computed once, without augmentation, and
/// standardized, so a smaller learning rate fits (deviation D9).
#[derive(Debug, Clone, PartialEq)]
pub struct LinearConfig {
    /// Passes over the training features.
    pub epochs: u64,
    /// Batch size.
    pub batch_size: usize,
    /// Learning rate at the start.
    pub lr: f64,
    /// Epochs at which the rate falls to a tenth.
    pub milestones: Vec<u32>,
    /// Momentum and weight decay.
    pub sgd: SgdConfig,
}

/// A trained linear classifier with the standardization of its input.
#[derive(Debug)]
pub struct LinearProbe {
    params: ParamStore,
    standardization: Standardization,
}

const WEIGHT: &str = "fc.weight";
const BIAS: &str = "fc.bias";

/// Trains on features by cross entropy; weights start at N(0, 0.01), biases at 0
/// (`main_lincls.py:229-235`). Only a batch is held in addition to the features; `progress` counts batches.
///
/// # Errors
/// If labels do not fit or the loss diverges.
pub fn train_linear(
    train: &FeatureSet,
    n_classes: usize,
    config: &LinearConfig,
    seed: Seed,
    progress: Progress<'_>,
) -> Result<LinearProbe, EvaluateError> {
    if let Some(label) = train.labels().iter().find(|label| **label as usize >= n_classes) {
        return Err(EvaluateError::Label { label: *label, n_classes });
    }
    let batch_size = config.batch_size.min(train.len()).max(1);
    let mut stream = seed.stream(Purpose::LinearProbe, At::default());
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    let weights: Vec<f32> =
        (0..n_classes * train.dim()).map(|_| (0.01 * stream.normal()) as f32).collect();
    let mut params = ParamStore::default();
    let weights = Tensor::from_vec(weights, (n_classes, train.dim()), &Device::Cpu);
    params.insert(WEIGHT, weights.during("weights")?, Role::Parameter)?;
    let bias = Tensor::zeros(n_classes, DType::F32, &Device::Cpu).during("bias")?;
    params.insert(BIAS, bias, Role::Parameter)?;
    let mut sgd = Sgd::new(config.sgd, &[&params])?;
    let schedule = Schedule::Steps { milestones: config.milestones.clone(), gamma: 0.1 };
    let standardization = Standardization::of(train);
    let steps_per_epoch = (train.len() / batch_size) as u64;
    for epoch in 0..config.epochs {
        let at = At::epoch(u32::try_from(epoch + 1).unwrap_or(u32::MAX));
        let mut order: Vec<u32> = (0..u32::try_from(train.len()).unwrap_or(u32::MAX)).collect();
        seed.stream(Purpose::LinearProbe, at).shuffle(&mut order);
        let (mut global_step, total_steps) =
            (epoch * steps_per_epoch, config.epochs * steps_per_epoch);
        let at = moco_optim::Progress { global_step, total_steps, steps_per_epoch };
        let lr = schedule.lr(config.lr, at);
        let lr = learning_rate(lr, DType::F32, &Device::Cpu)?;
        let mut last_loss = None;
        for batch in order.chunks_exact(batch_size) {
            let labels: Vec<u32> = batch.iter().map(|i| train.labels()[*i as usize]).collect();
            let rows = standardization.rows(train, batch.iter().map(|i| *i as usize));
            let x = Tensor::from_vec(rows, (batch.len(), train.dim()), &Device::Cpu);
            let x = x.during("a batch")?;
            let (loss, gradients) = loss_and_gradients(&params, &x, &labels)?;
            if !loss.is_finite() {
                return Err(EvaluateError::Diverged { epoch, loss, lr: config.lr });
            }
            sgd.step(&[&params], &gradients, &lr)?;
            last_loss = Some(loss);
            global_step += 1;
            progress(global_step, total_steps);
        }
        tracing::debug!(epoch, loss = last_loss, "an epoch of the linear classifier");
    }
    Ok(LinearProbe { params, standardization })
}

/// Mean cross entropy and its gradients.
fn loss_and_gradients(
    params: &ParamStore,
    x: &Tensor,
    labels: &[u32],
) -> Result<(f64, Gradients), EvaluateError> {
    let logits = linear(x, params.get(WEIGHT)?, params.get(BIAS)?)?;
    let mut rows = logits.to_vec2::<f32>().during("logits")?;
    let n = count(rows.len());
    let mut loss = 0.0;
    for (row, label) in rows.iter_mut().zip(labels) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|l| f64::from(l - max).exp()).sum();
        loss += (sum.ln() - f64::from(row[*label as usize] - max)) / n;
        for (class, l) in row.iter_mut().enumerate() {
            let p = f64::from(*l - max).exp() / sum;
            let target = f64::from(u8::from(class == *label as usize));
            #[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
            let gradient = ((p - target) / n) as f32;
            *l = gradient;
        }
    }
    let n_classes = rows.first().map_or(0, Vec::len);
    let dy = Tensor::from_vec(rows.concat(), (labels.len(), n_classes), &Device::Cpu);
    let of_layer = linear_backward(x, params.get(WEIGHT)?, &dy.during("gradient")?)?;
    let gradients = [(WEIGHT, of_layer.weight), (BIAS, of_layer.bias)];
    Ok((loss, gradients.map(|(name, g)| (name.to_owned(), g)).into()))
}

/// Top-1 accuracy in percent of a trained classifier.
///
/// # Errors
/// If the widths differ.
pub fn linear_accuracy(probe: &LinearProbe, test: &FeatureSet) -> Result<f64, EvaluateError> {
    let (expected, got) = (probe.standardization.dim(), test.dim());
    if expected != got || test.is_empty() {
        return Err(EvaluateError::Mismatch { what: "width of test features", expected, got });
    }
    let mut correct = 0;
    for rows in ranges(0..test.len(), block_rows(test.dim())) {
        let x = probe.standardization.rows(test, rows.clone());
        let x = Tensor::from_vec(x, (rows.len(), test.dim()), &Device::Cpu).during("features")?;
        let logits = linear(&x, probe.params.get(WEIGHT)?, probe.params.get(BIAS)?)?;
        let logits = logits.to_vec2::<f32>().during("logits")?;
        let pairs = logits.iter().zip(&test.labels()[rows]);
        correct += pairs.filter(|(row, label)| top_k_correct(row, **label as usize, 1)).count();
    }
    Ok(100.0 * count(correct) / count(test.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lr: f64) -> LinearConfig {
        let sgd = SgdConfig { sgd_momentum: 0.9, weight_decay: 0.0 };
        LinearConfig { epochs: 20, batch_size: 16, lr, milestones: vec![12, 16], sgd }
    }

    fn trained(train: &FeatureSet, config: &LinearConfig, seed: Seed) -> LinearProbe {
        train_linear(train, 3, config, seed, &mut |_, _| ()).unwrap()
    }

    /// Three classes along three directions, with noise; `shift` moves and stretches everything.
    fn blobs(n: usize, stream: u64, noise: f64) -> FeatureSet {
        let mut stream = Seed(4).stream(Purpose::Textures, At::index(stream));
        let labels: Vec<u32> = (0..n).map(|i| (i % 3) as u32).collect();
        let numbers = labels
            .iter()
            .flat_map(|label| {
                let center = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]][*label as usize];
                center.map(|c| (1000.0 + 50.0 * (c + noise * stream.normal())) as f32)
            })
            .collect();
        FeatureSet::new(2, numbers, labels).unwrap()
    }

    #[test]
    fn separable_classes_are_learnt_at_any_scale_and_noise_is_not() {
        let accuracy = |noise| {
            let probe = trained(&blobs(300, 1, noise), &config(0.1), Seed(1));
            linear_accuracy(&probe, &blobs(300, 2, noise)).unwrap()
        };
        assert!(accuracy(0.05) > 99.0, "{}", accuracy(0.05));
        assert!((20.0..60.0).contains(&accuracy(50.0)), "{}", accuracy(50.0));
    }

    #[test]
    fn gradients_are_central_differences() {
        let set = blobs(6, 1, 0.3);
        let x = Standardization::of(&blobs(30, 3, 0.3)).rows(&set, 0..6);
        let x = Tensor::from_vec(x, (6, 2), &Device::Cpu).unwrap();
        let mut params = ParamStore::default();
        let start = Tensor::new(&[[0.3_f32, -0.2], [0.1, 0.5], [-0.4, 0.2]], &Device::Cpu).unwrap();
        params.insert(WEIGHT, start.clone(), Role::Parameter).unwrap();
        let bias = Tensor::new(&[0.1_f32, -0.1, 0.0], &Device::Cpu).unwrap();
        params.insert(BIAS, bias, Role::Parameter).unwrap();
        let (_, gradients) = loss_and_gradients(&params, &x, set.labels()).unwrap();
        let gradient = gradients[WEIGHT].to_vec2::<f32>().unwrap();
        for (i, j) in [(0, 0), (1, 1), (2, 0)] {
            let mut loss = |step: f32| {
                let mut rows = start.to_vec2::<f32>().unwrap();
                rows[i][j] += step;
                let flat: Vec<f32> = rows.concat();
                params.set(WEIGHT, &Tensor::from_vec(flat, (3, 2), &Device::Cpu).unwrap()).unwrap();
                loss_and_gradients(&params, &x, set.labels()).unwrap().0
            };
            let expected = (loss(0.01) - loss(-0.01)) / 0.02;
            let got = f64::from(gradient[i][j]);
            assert!((got - expected).abs() < 1e-3, "{i} {j}: {got} {expected}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_classifier() {
        let weights = |seed| {
            let probe = trained(&blobs(60, 1, 0.5), &config(0.1), Seed(seed));
            probe.params.get(WEIGHT).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }

    #[test]
    fn every_batch_is_reported() {
        let mut reports = Vec::new();
        let set = blobs(50, 1, 0.5);
        let mut progress = |done, total| reports.push((done, total));
        train_linear(&set, 3, &config(0.1), Seed(1), &mut progress).unwrap();
        // 20 epochs of 3 whole batches of 16.
        let expected: Vec<(u64, u64)> = (1..=60).map(|done| (done, 60)).collect();
        assert_eq!(reports, expected);
    }

    #[test]
    fn bad_input_is_named() {
        let message = |n_images, n_classes, lr| {
            let set = blobs(n_images, 1, 0.1);
            let trained = train_linear(&set, n_classes, &config(lr), Seed(1), &mut |_, _| ());
            trained.unwrap_err().to_string()
        };
        assert_eq!(message(9, 2, 0.1), "label 2 of 2 classes");
        assert_eq!(
            message(90, 3, f64::MAX),
            "the linear classifier's loss is NaN in epoch 0 with learning rate \
             1.7976931348623157e308; a lower one: pretrain --resume RUN --set \
             evaluate.linear_lr=…, or lincls RUN --lr …"
        );
    }
}
