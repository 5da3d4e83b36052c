//! The end-to-end mechanism, seen from outside.

use std::collections::BTreeMap;

use moco::{Batch, EndToEnd, Health, Mechanism, MechanismKind, MocoConfig};
use moco_encoders::HeadKind;

use crate::common::{N, SEED, SGD, batch, encoder, images, numbers};

fn config() -> MocoConfig {
    MocoConfig { queue_size: 1, ..crate::common::config(MechanismKind::EndToEnd) }
}

fn model(config: MocoConfig, groups: usize) -> EndToEnd {
    EndToEnd::new(encoder(groups), HeadKind::Mlp, config, SGD, SEED).unwrap()
}

fn copies(model: &EndToEnd) -> BTreeMap<String, Vec<f64>> {
    numbers(&model.state().unwrap())
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn both_encoders_start_equal_and_are_trained_apart() {
    let mut model = model(config(), 2);
    let start = copies(&model);
    let of_key = |name: &str| name.replace("encoder_q.", "encoder_k.");
    for name in start.keys().filter(|name| name.starts_with("encoder_q.")) {
        assert_eq!(start[name], start[&of_key(name)], "{name}");
    }
    model.step(&batch(0), 0.1).unwrap();
    let after = copies(&model);
    for name in start.keys().filter(|name| name.ends_with("weight") && !name.starts_with("sgd")) {
        assert!(largest_difference(&start[name], &after[name]) > 1e-6, "{name} was not trained");
    }
    assert_ne!(after["encoder_q.conv1.weight"], after["encoder_k.conv1.weight"]);
}

/// Batch norm over one group does not see the order of its images: if the gradient of the keys went back
/// through another permutation than the inverse one, the key encoder would learn something else.
#[test]
fn gradients_of_the_keys_go_back_through_the_inverse_permutation() {
    let step = |shuffle_bn: bool, groups: usize| {
        let mut model = model(MocoConfig { shuffle_bn, ..config() }, groups);
        model.step(&batch(0), 0.1).unwrap();
        copies(&model)
    };
    let (shuffled, plain) = (step(true, 1), step(false, 1));
    for (name, numbers) in &plain {
        assert!(largest_difference(numbers, &shuffled[name]) < 1e-11, "{name}");
    }
    let (shuffled, plain) = (step(true, 2), step(false, 2));
    let name = "encoder_k.conv1.weight";
    assert!(largest_difference(&plain[name], &shuffled[name]) > 1e-6, "groups see other images");
}

#[test]
fn a_loaded_state_continues_with_the_same_bits() {
    let mut whole = model(config(), 2);
    let mut first = model(config(), 2);
    for step in 0..2 {
        whole.step(&batch(step), 0.1).unwrap();
        first.step(&batch(step), 0.1).unwrap();
    }
    let mut second = model(config(), 2);
    second.load_state(&first.state().unwrap(), first.global_step()).unwrap();
    for step in 2..4 {
        whole.step(&batch(step), 0.1).unwrap();
        second.step(&batch(step), 0.1).unwrap();
    }
    assert_eq!(copies(&second), copies(&whole));
    assert_eq!(second.global_step(), 4);
}

/// Chance is ln N, since the batch holds N − 1 negatives, and no queue has to be filled first.
#[test]
fn health_knows_the_number_of_negatives() {
    let mut model = model(config(), 1);
    let statistics = model.step(&batch(0), 0.1).unwrap().read().unwrap();
    let report = Health::new(&config(), N, 1, 1000).observe(&statistics);
    assert!((report.chance_loss - (N as f64).ln()).abs() < 1e-12);
    assert_eq!(report.queue_filled_percent, 100);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// The accuracy of the next step, and another one where keys are in other groups; nothing changes.
#[test]
fn the_leak_is_measured_with_the_keys_of_the_next_step() {
    let mut model = model(config(), 2);
    let before = copies(&model);
    let leak = Mechanism::leak(&model, SEED, &batch(0)).unwrap();
    assert_eq!(copies(&model), before);
    assert!(model.queue().is_none());
    let step = model.step(&batch(0), 0.1).unwrap().read().unwrap();
    assert!((leak.top1_as_trained - step.pretext_top1).abs() < 1e-12, "{leak:?}");
}

#[test]
fn one_batch_is_learnt_by_heart() {
    let mut model = model(config(), 2);
    let mut step = || model.step(&batch(0), 0.05).unwrap().read().unwrap().loss;
    let first = step();
    let last = (0..30).map(|_| step()).last().unwrap();
    assert!(last < 0.5 * first, "{first} became {last}");
}

#[test]
fn an_image_that_is_not_finite_is_named_and_changes_no_weights() {
    let mut model = model(config(), 2);
    let before = copies(&model);
    let im_k = (images(1) * f64::NAN).unwrap();
    let batch = Batch { im_k, sample_indices: (30..38).collect(), ..batch(0) };
    assert_eq!(
        model.step(&batch, 0.1).unwrap_err().to_string(),
        "view 2 of sample 30 holds NaN or infinite pixels at step 0; no weight was updated. \
         hint: look at this image and at what the augmentation makes of it"
    );
    let after = copies(&model);
    assert_eq!(before["encoder_k.conv1.weight"], after["encoder_k.conv1.weight"]);
    assert_eq!(model.global_step(), 0);
}
