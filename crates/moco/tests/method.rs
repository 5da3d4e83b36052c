//! The method seen from outside: oracles of the step, the momentum update and the queue.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use moco::{
    Batch, Execution, Health, Inspector, Leak, MeasureLeak, Mechanism, MechanismKind, Moco,
    MocoConfig, build_mechanism, chance_loss,
};
use moco_encoders::{HeadKind, Mode};
use moco_ops::add;
use moco_rng::{At, Purpose, Seed};

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

/// Steps of a model with a look at each; the alarms after the last one, and the leaks that were measured.
fn watch(
    model: &mut dyn Mechanism,
    mut health: Health,
    views: &dyn Fn(u64) -> Batch,
    lr: f64,
    steps: u64,
) -> (Vec<String>, Vec<Leak>) {
    let mut inspector = Inspector::new(SEED, 0.2);
    let (mut alarms, mut leaks) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let batch = views(step);
        let before = inspector.before(model, &batch, health.suspects_leak()).unwrap();
        let statistics = model.step(&batch, lr).unwrap().read().unwrap();
        let inspection = inspector.after(model, &batch, &before).unwrap();
        if let Some(leak) = inspection.leak {
            // What was measured before the step is what it found.
            assert!((leak.top1_as_trained - statistics.pretext_top1).abs() < 1e-9, "{leak:?}");
            leaks.push(leak);
        }
        health.inspect(&inspection);
        alarms = health.observe(&statistics).findings.iter().map(ToString::to_string).collect();
    }
    (alarms, leaks)
}

fn mechanism(config: MocoConfig, groups: usize) -> Box<dyn Mechanism> {
    let encoder = encoder(groups);
    build_mechanism(encoder, HeadKind::Mlp, config, SGD.into(), SEED, Execution::Eager).unwrap()
}

/// The head's last layer has no weights, so all features are its bias.
#[test]
fn a_provoked_collapse_rings_its_alarm() {
    let mut collapsed = mechanism(MocoConfig { queue_size: 64, ..config() }, 2);
    let mut state = collapsed.state().unwrap();
    for (name, tensor) in &mut state {
        if name.ends_with("fc.2.weight") {
            *tensor = tensor.zeros_like().unwrap();
        }
    }
    collapsed.load_state(&state, 0).unwrap();
    let config = MocoConfig { queue_size: 64, ..config() };
    let health = Health::new(&config, 32, 2, 10_000);
    // The weights move, so that no frozen encoder is the cause, and too little to leave the collapse.
    let (alarms, _) = watch(collapsed.as_mut(), health, &noisy_views, 1e-9, 30);
    let expected = "collapse: all features are equal (rank 1.0); lower optim.base_lr or raise moco.key_momentum; views must differ";
    assert_eq!(alarms, [expected]);
    let loss = collapsed.step(&noisy_views(99), 0.0).unwrap().read().unwrap().loss;
    assert!((loss - chance_loss(64)).abs() < 1e-9, "a collapsed loss is ln(K + 1): {loss}");
}

/// Two noisy views of each of 32 images, which are other ones in each step.
fn noisy_views(step: u64) -> Batch {
    let noise = |index: u64| {
        let mut stream = Seed(4).stream(Purpose::Augment, At::index(index));
        let numbers: Vec<f64> = (0..32 * 3 * 64).map(|_| stream.normal()).collect();
        Tensor::from_vec(numbers, (32, 3, 8, 8), &Device::Cpu).unwrap()
    };
    let images = noise(3 * step);
    let view = |i: u64| add(&images, &(noise(3 * step + i) * 0.1).unwrap()).unwrap();
    Batch { im_q: view(1), im_k: view(2), sample_indices: Vec::new() }
}

/// A real leak: in groups of two images batch norm makes a feature of the sign of their difference, so a key is
/// found by its partner. Permuted keys have other partners, and find nothing that regrouping would take away.
#[test]
fn a_provoked_leak_is_measured_and_rings_only_without_the_shuffle() {
    let run = |shuffle_bn: bool| {
        let config = MocoConfig { queue_size: 64, shuffle_bn, ..config() };
        let health = Health::new(&config, 32, 16, 10_000);
        let mut model = mechanism(config, 16);
        let (alarms, _) = watch(model.as_mut(), health, &noisy_views, 0.005, 80);
        let leaks = (80..100).map(|step| model.leak(SEED, &noisy_views(step)).unwrap());
        let lost = leaks.map(|leak| leak.top1_as_trained - leak.top1_in_other_groups);
        (alarms, lost.sum::<f64>() / 20.0)
    };
    let leak_in = |alarms: &[String]| -> Option<(f64, f64)> {
        let hint = " %; shuffle over more groups: moco.shuffle_bn, encoder.bn_groups";
        let what = "batch norm leaks: regrouped, top-1 ";
        let mut parts = alarms
            .iter()
            .filter_map(|alarm| alarm.strip_prefix(what)?.strip_suffix(hint)?.split_once(" to "));
        parts.next().map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()))
    };
    let (alarms, lost) = run(false);
    assert!(lost > 10.0, "{lost} points");
    assert!(leak_in(&alarms).is_some_and(|(from, to)| from > 1.5 * to), "{alarms:?}");
    let off = "batch norm has 16 groups, no shuffled keys; set moco.shuffle_bn = true, unless this is the control of v1 A.9";
    assert_eq!(alarms.last().unwrap(), off);
    let (alarms, lost) = run(true);
    assert!(lost.abs() < 8.0, "{lost} points");
    assert_eq!(leak_in(&alarms), None, "{alarms:?}");
}

/// The model is the same after a look at it, and trains to the same bits.
#[test]
fn a_look_changes_no_bit() {
    let mut looked_at = mechanism(config(), 2);
    let mut not_looked_at = mechanism(config(), 2);
    let mut inspector = Inspector::new(SEED, 0.2);
    for step in 0..4 {
        let batch = views(step);
        let before = inspector.before(looked_at.as_ref(), &batch, MeasureLeak::Yes).unwrap();
        looked_at.step(&batch, 0.1).unwrap();
        let seen = inspector.after(looked_at.as_ref(), &batch, &before).unwrap();
        not_looked_at.step(&batch, 0.1).unwrap();
        // Eq. (2): the key encoder goes 1 − m of the way, once there is a way.
        if let Some(follows) = seen.weights.key_follows {
            assert!((follows - 0.1).abs() < 1e-9, "{follows}");
        }
        assert_eq!(seen.weights.key_follows.is_some(), step > 0);
        assert!(seen.weights.query_drift > 0.0 && seen.keys.is_some() && seen.leak.is_some());
        let [a, b] = [&looked_at, &not_looked_at].map(|model| numbers(&model.state().unwrap()));
        assert_eq!(a, b);
    }
}
