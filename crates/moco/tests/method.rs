//! The method seen from outside: oracles of the step, the momentum update and the queue.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use moco::{Alarm, Batch, Health, MechanismKind, Moco, MocoConfig, chance_loss};
use moco_encoders::{HeadKind, Mode};

use crate::common::{N, SEED, SGD, batch as views, encoder, images, numbers};

fn config() -> MocoConfig {
    crate::common::config(MechanismKind::Queue)
}

fn moco(config: MocoConfig, groups: usize) -> Moco {
    Moco::new(encoder(groups), HeadKind::Mlp, config, SGD, SEED).unwrap()
}

fn copies(moco: &Moco) -> BTreeMap<String, Vec<f64>> {
    numbers(&moco.state().unwrap())
}

fn is_buffer(name: &str) -> bool {
    name.contains("running_") || name.contains("num_batches")
}

#[test]
fn the_first_momentum_update_is_a_no_op_and_later_ones_are_the_formula() {
    let mut moco = moco(config(), 2);
    let start = copies(&moco);
    for (name, values) in &start {
        if let Some(rest) = name.strip_prefix("encoder_k.") {
            assert_eq!(
                values,
                &start[&format!("encoder_q.{rest}")],
                "{name} starts as the query's"
            );
        }
    }
    moco.step(&views(0), 0.1).unwrap();
    let first = copies(&moco);
    moco.step(&views(1), 0.1).unwrap();
    let second = copies(&moco);
    for name in start.keys().filter(|name| name.starts_with("encoder_k.") && !is_buffer(name)) {
        // A no-op up to the rounding of m·k + (1 − m)·k, the official formula.
        for (k1, k0) in first[name].iter().zip(&start[name]) {
            assert!((k1 - k0).abs() <= 2.0 * f64::EPSILON * k0.abs(), "{name}: {k0} became {k1}");
        }
        let q = &first[&name.replace("encoder_k.", "encoder_q.")];
        for ((k2, k1), q1) in second[name].iter().zip(&first[name]).zip(q) {
            assert!((k2 - (0.9 * k1 + 0.1 * q1)).abs() < 1e-14, "{name}");
        }
    }
}

#[test]
fn running_statistics_of_the_key_encoder_come_from_its_own_forward_passes() {
    let mut moco = moco(MocoConfig { key_momentum: 0.5, ..config() }, 2);
    let mut copy = moco.encoder_k().fork().unwrap();
    moco.step(&views(0), 0.1).unwrap();
    // The same shuffled images through a copy: the same running statistics, not blended with f_q's.
    let shuffle = moco::Shuffle::of_step(SEED, 0, 0, N).unwrap();
    copy.encode(&shuffle.apply(&views(0).im_k).unwrap(), Mode::Train).unwrap();
    let after = copies(&moco);
    let mut n_buffers = 0;
    for (name, expected, _) in copy.stores().into_iter().flat_map(|store| store.iter()) {
        if is_buffer(name) {
            let expected = expected.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
            assert_eq!(after[&format!("encoder_k.{name}")], expected.to_vec1::<f64>().unwrap());
            n_buffers += 1;
        }
    }
    assert!(n_buffers > 20);
}

#[test]
fn the_queue_holds_unit_keys_newest_behind_the_pointer() {
    let mut moco = moco(config(), 2);
    for step in 0..7 {
        let before = copies(&moco)["queue"].clone();
        let output = moco.step(&views(step), 0.1).unwrap();
        let (queue, k) = (copies(&moco)["queue"].clone(), output.k[0].to_vec2::<f64>().unwrap());
        let at = (step as usize * N) % 20;
        for column in 0..20 {
            let get =
                |queue: &[f64]| (0..12).map(|row| queue[row * 20 + column]).collect::<Vec<_>>();
            let norm: f64 = get(&queue).iter().map(|v| v * v).sum();
            assert!((norm - 1.0).abs() < 1e-12, "column {column}");
            let age = (column + 20 - at) % 20;
            let expected = if age < N { k[age].clone() } else { get(&before) };
            assert_eq!(get(&queue), expected, "step {step}, column {column}");
        }
        assert_eq!(moco.queue().ptr(), (at + N) % 20);
    }
}

#[test]
fn this_steps_keys_are_not_among_its_negatives() {
    let mut moco = moco(config(), 2);
    let queue = copies(&moco)["queue"].clone();
    let output = moco.step(&views(0), 0.1).unwrap();
    let (q, k) = (output.q[0].to_vec2::<f64>().unwrap(), output.k[0].to_vec2::<f64>().unwrap());
    let loss = |i: usize| -> f64 {
        let positive: f64 = q[i].iter().zip(&k[i]).map(|(a, b)| a * b).sum::<f64>() / 0.2;
        let negatives = (0..20).map(|column| {
            (0..12).map(|row| q[i][row] * queue[row * 20 + column]).sum::<f64>() / 0.2
        });
        (positive.exp() + negatives.map(f64::exp).sum::<f64>()).ln() - positive
    };
    let expected = (0..N).map(loss).sum::<f64>() / N as f64;
    let loss = output.statistics.read().unwrap().loss;
    assert!((loss - expected).abs() < 1e-12, "{loss} {expected}");
}

#[test]
fn shuffling_changes_the_keys_only_where_groups_have_their_own_statistics() {
    let keys = |groups: usize, shuffle_bn: bool| {
        let mut moco = moco(MocoConfig { shuffle_bn, ..config() }, groups);
        let k = moco.step(&views(0), 0.1).unwrap().k;
        k[0].flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    let distance =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(distance(&keys(1, true), &keys(1, false)) < 1e-12, "one group: no effect");
    assert!(distance(&keys(2, true), &keys(2, false)) > 1e-3, "two groups: other statistics");
}

#[test]
fn the_symmetric_loss_is_the_sum_of_both_directions() {
    let run = |symmetric: bool, swap: bool| {
        let mut moco = moco(MocoConfig { symmetric, shuffle_bn: false, ..config() }, 1);
        let Batch { im_q, im_k, .. } = views(0);
        let views = if swap {
            Batch { im_q: im_k, im_k: im_q, sample_indices: Vec::new() }
        } else {
            Batch { im_q, im_k, sample_indices: Vec::new() }
        };
        let output = moco.step(&views, 0.0).unwrap();
        (
            output.statistics.read().unwrap().loss,
            output.gradients["conv1.weight"].flatten_all().unwrap().to_vec1::<f64>().unwrap(),
        )
    };
    let (both, there, back) = (run(true, false), run(false, false), run(false, true));
    assert!((both.0 - there.0 - back.0).abs() < 1e-12);
    for (sum, (a, b)) in both.1.iter().zip(there.1.iter().zip(&back.1)) {
        assert!((sum - a - b).abs() < 1e-10);
    }
}

#[test]
fn a_state_that_is_loaded_goes_on_with_the_same_bits() {
    let mut whole = moco(config(), 2);
    (0..4).for_each(|step| drop(whole.step(&views(step), 0.1).unwrap()));
    let mut first = moco(config(), 2);
    (0..2).for_each(|step| drop(first.step(&views(step), 0.1).unwrap()));
    let mut second = moco(MocoConfig { queue_size: 20, ..config() }, 2);
    second.load_state(&first.state().unwrap(), first.global_step()).unwrap();
    // The loaded state shares no memory with the one it came from.
    first.step(&views(9), 0.1).unwrap();
    (2..4).for_each(|step| drop(second.step(&views(step), 0.1).unwrap()));
    assert_eq!(copies(&second), copies(&whole));
    assert_eq!(second.global_step(), 4);
    let mut state = whole.state().unwrap();
    state.remove("queue");
    assert_eq!(second.load_state(&state, 0).unwrap_err().to_string(), "no tensor named `queue`");
}

#[test]
fn a_loss_that_is_not_finite_changes_no_weights_and_no_keys() {
    let mut moco = moco(config(), 2);
    moco.step(&views(0), 0.1).unwrap();
    let before = copies(&moco);
    // One image: batch norm makes NaN of every query, and the error names the image all the same.
    let pixel = Tensor::new(f64::NAN, &Device::Cpu).unwrap().broadcast_as((1, 3, 8, 8)).unwrap();
    let im_q = images(0).slice_scatter0(&pixel.contiguous().unwrap(), 5).unwrap();
    let batch = Batch { im_q, ..views(1) };
    let unknown = Batch { sample_indices: Vec::new(), ..batch.clone() };
    for (batch, expected) in [
        (
            batch,
            "view 1 of sample 105 holds NaN or infinite pixels at step 1; no weight was updated. \
             hint: look at this image and at what the augmentation makes of it",
        ),
        (
            unknown,
            "the loss is NaN at step 1; weights and queue were not updated. \
             hint: lower optim.base_lr, or raise moco.temperature",
        ),
    ] {
        assert_eq!(moco.step(&batch, 0.1).unwrap_err().to_string(), expected);
    }
    let after = copies(&moco);
    for (name, values) in &before {
        let kept = name.starts_with("encoder_q.") && !is_buffer(name);
        if kept || name.starts_with("queue") || name.starts_with("sgd.") {
            assert_eq!(values, &after[name], "{name}");
        }
    }
    assert_eq!(moco.global_step(), 1);
}

/// The faults themselves, not made-up numbers: what a sick run's steps say rings the alarm.
#[test]
fn provoked_faults_ring_their_alarms() {
    let watch = |moco: &mut Moco, views: &dyn Fn(u64) -> Batch, lr: f64, steps: u64| {
        let mut health = Health::new(moco.config(), N, 10_000);
        let mut alarms = Vec::new();
        for step in 0..steps {
            let output = moco.step(&views(step), lr).unwrap().statistics.read().unwrap();
            let report = health.observe(&output);
            assert_eq!(u64::from(report.queue_filled_percent), (40 * (step + 1)).min(100));
            alarms.extend(report.alarms);
        }
        alarms
    };
    // Collapse: the head's last layer has no weights, so all features are its bias.
    let mut collapsed = moco(config(), 2);
    let mut state = collapsed.state().unwrap();
    for (name, tensor) in &mut state {
        if name.ends_with("fc.2.weight") {
            *tensor = tensor.zeros_like().unwrap();
        }
    }
    collapsed.load_state(&state, 0).unwrap();
    let alarms = watch(&mut collapsed, &views, 0.0, 30);
    assert!(alarms.contains(&Alarm::Collapse), "{alarms:?}");
    let loss = collapsed.step(&views(99), 0.0).unwrap().statistics.read().unwrap().loss;
    assert!((loss - chance_loss(20)).abs() < 1e-9, "a collapsed loss is ln(K + 1): {loss}");

    // A leak: both views are the same images, so every positive is found at once.
    let mut leaking = moco(config(), 1);
    let same =
        |step: u64| Batch { im_q: images(step), im_k: images(step), sample_indices: Vec::new() };
    let alarms = watch(&mut leaking, &same, 0.0, 30);
    assert!(alarms.contains(&Alarm::BnLeak), "{alarms:?}");
}
