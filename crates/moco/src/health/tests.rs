//! What was seen, and what rings: each rule with its whole message.

use super::*;
use crate::QueuePrecision;
use crate::config::MechanismKind;
use crate::inspect::{ImageNumbers, KeyNumbers, Leak, WeightNumbers};

const CONFIG: MocoConfig = MocoConfig {
    mechanism: MechanismKind::Queue,
    queue_size: 100,
    key_momentum: 0.99,
    temperature: 0.2,
    dim: 16,
    symmetric: false,
    shuffle_bn: true,
    queue_precision: QueuePrecision::AsParameters,
};

fn health(n_images: u64) -> Health {
    Health::new(&CONFIG, 10, 2, n_images)
}

const GOOD: StepStatistics = StepStatistics {
    global_step: 50,
    loss: 3.0,
    pretext_top1: 60.0,
    pretext_top5: 80.0,
    positive_cosine: 0.8,
    negative_cosine: 0.1,
};

const SEEN: Inspection = Inspection {
    images: ImageNumbers {
        images_seen: 10,
        flat_percent: 10.0,
        equal_views_percent: 0.0,
        own_color_distance: 1.0,
        other_color_distance: 2.0,
    },
    weights: WeightNumbers {
        query_drift: 0.01,
        key_drift: 0.001,
        encoder_distance: 0.1,
        key_follows: Some(0.01),
        query_moved: 0.2,
        key_moved: 0.1,
    },
    keys: Some(KeyNumbers { feature_spread: 0.8, effective_rank: 6.0, logit_spread: 1.5 }),
    leak: Some(Leak { top1_as_trained: 60.0, top1_in_other_groups: 50.0 }),
};

/// A seeded collapse, which has a cause where one is seen.
fn collapse() -> StepStatistics {
    let loss = crate::chance_loss(100);
    StepStatistics { positive_cosine: 1.0, negative_cosine: 1.0, loss, ..GOOD }
}

/// What is found after looks at the same step.
fn after(health: &mut Health, looks: u32, seen: &Inspection) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..looks {
        health.inspect(seen);
        found = health.observe(&GOOD).findings;
    }
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_run_has_no_alarm() {
    let mut health = health(1000);
    assert_eq!(after(&mut health, 100, &SEEN), [""; 0]);
    assert_eq!(health.at_start(), []);
}

#[test]
fn the_queue_fills_in_the_expected_number_of_steps() {
    let mut health = health(1000);
    let mut filled =
        |global_step| health.observe(&StepStatistics { global_step, ..GOOD }).queue_filled_percent;
    assert_eq!([0, 7, 10, u64::MAX].map(&mut filled), [0, 70, 100, 100]);
}

#[test]
fn a_run_has_phases() {
    let mut health = health(1000);
    let mut phase =
        |global_step, loss| health.observe(&StepStatistics { global_step, loss, ..GOOD }).phase;
    // Chance is 4.62, the floor 0.9.
    assert_eq!(phase(9, 3.0), Phase::Filling);
    assert_eq!(phase(10, 4.6), Phase::AtChance);
    assert_eq!(phase(10, 4.5), Phase::Learning);
    assert_eq!(phase(10, 1.5), Phase::Learning);
    assert_eq!(phase(10, 1.0), Phase::NearFloor);
}

/// Each cause as the run's own numbers show it, after three looks and not before, with what to do.
#[test]
fn each_cause_is_named_by_what_was_seen_of_it() {
    let Inspection { images, weights, keys, .. } = SEEN;
    let keys = keys.unwrap();
    let cases = [
        (
            Inspection {
                images: ImageNumbers { flat_percent: 100.0, equal_views_percent: 100.0, ..images },
                ..SEEN
            },
            "100 % of the images have one color only; look at the images and at augment.*: cargo xtask preview",
        ),
        (
            Inspection { images: ImageNumbers { equal_views_percent: 95.0, ..images }, ..SEEN },
            "95 % of the images have two equal views; the augmentation must draw each view: augment.*, cargo xtask preview",
        ),
        (
            Inspection {
                weights: WeightNumbers {
                    query_drift: 0.0,
                    key_drift: 0.0,
                    query_moved: 0.0,
                    key_moved: 0.0,
                    key_follows: None,
                    ..weights
                },
                ..SEEN
            },
            "the query encoder's weights do not change; raise optim.base_lr, or look at the schedule: metrics.jsonl has lr",
        ),
        (
            Inspection {
                weights: WeightNumbers {
                    key_drift: 0.0,
                    key_moved: 0.0,
                    key_follows: Some(0.0),
                    ..weights
                },
                ..SEEN
            },
            "the key encoder stays, the query encoder moves; lower moco.key_momentum below 1",
        ),
        (
            Inspection { weights: WeightNumbers { key_follows: Some(1.0), ..weights }, ..SEEN },
            "the key encoder follows by 100 % in one step; raise moco.key_momentum: keys of older encoders do not compare",
        ),
        (
            Inspection { weights: WeightNumbers { query_drift: 0.0512, ..weights }, ..SEEN },
            "rate too high: a step changes weights by 5 %; lower optim.base_lr, or add optim.warmup_epochs",
        ),
    ];
    for (seen, expected) in cases {
        let mut health = health(1000);
        assert_eq!(after(&mut health, Health::LOOKS - 1, &seen), [""; 0], "{expected}");
        assert_eq!(after(&mut health, 1, &SEEN), [""; 0], "{expected}: one good look");
        assert_eq!(after(&mut health, Health::LOOKS - 1, &seen), [""; 0], "{expected}");
        assert_eq!(after(&mut health, 1, &seen), [expected]);
        assert_eq!(after(&mut health, 1, &SEEN), [expected], "a cause stays known");
    }
    // One batch of ten is too few for a leak; from the second on it is seen.
    let leak = Some(Leak { top1_as_trained: 100.0, top1_in_other_groups: 0.0 });
    let mut leaking = health(1000);
    assert_eq!(after(&mut leaking, 3, &Inspection { leak, ..SEEN }), [""; 0]);
    assert_eq!(
        after(&mut leaking, 1, &Inspection { leak, ..SEEN }),
        [
            "batch norm leaks: regrouped, top-1 100 to 0 %; shuffle over more groups: moco.shuffle_bn, encoder.bn_groups"
        ]
    );
    // The colors of 200 images have to be seen: 20 looks, and two more.
    let images = ImageNumbers { own_color_distance: 1.9, other_color_distance: 2.0, ..images };
    let mut foreign = health(1000);
    assert_eq!(after(&mut foreign, 21, &Inspection { images, ..SEEN }), [""; 0]);
    assert_eq!(
        after(&mut foreign, 1, &Inspection { images, ..SEEN }),
        [
            "the two views show different images (r = 0.05); augment.pairing = \"same_image\", or an augmentation that pairs views"
        ]
    );
    // A temperature is judged by the closed forms, and by the spread of the logits.
    let with = |temperature| Health::new(&MocoConfig { temperature, ..CONFIG }, 10, 2, 1000);
    let spread =
        |logit_spread| Inspection { keys: Some(KeyNumbers { logit_spread, ..keys }), ..SEEN };
    let low = "temperature too low: logits spread by 200; raise moco.temperature; the papers use 0.07 to 0.5";
    let high = "temperature too high: floor 4.42, chance 4.62; lower moco.temperature; the papers use 0.07 to 0.5";
    assert_eq!(after(&mut with(0.002), 3, &spread(200.0)), [low]);
    assert_eq!(after(&mut with(0.002), 3, &spread(2.0)), [""; 0]);
    assert_eq!(after(&mut with(0.2), 3, &spread(200.0)), [""; 0]);
    assert_eq!(after(&mut with(5.0), 3, &spread(0.1)), [high]);
    assert_eq!(after(&mut with(5.0), 3, &spread(1.0)), [""; 0]);
}

#[test]
fn a_symptom_waits_for_its_cause_and_rings_without_one() {
    let run = |step: StepStatistics, seen: Option<Inspection>, steps: u32| {
        let mut health = health(1000);
        let mut report = health.observe(&GOOD);
        for i in 0..steps {
            // A look each fifth step.
            if let Some(seen) = seen.as_ref().filter(|_| i % 5 == 4) {
                health.inspect(seen);
            }
            report = health.observe(&step);
        }
        report
    };
    let texts = |report: &HealthReport| -> Vec<String> {
        report.findings.iter().map(ToString::to_string).collect()
    };
    let collapsed = "collapse: all features are equal (rank 6.0); lower optim.base_lr or raise moco.key_momentum; views must differ";
    let stuck = "nothing is learned: loss at chance, 4.62; raise optim.base_lr; in a short run lower moco.key_momentum";
    let at_chance = StepStatistics { loss: crate::chance_loss(100), ..GOOD };
    for (step, expected) in [(collapse(), collapsed), (at_chance, stuck)] {
        assert!(run(step, Some(SEEN), 14).findings.is_empty(), "{expected}");
        assert_eq!(texts(&run(step, Some(SEEN), 15)), [expected]);
        // The same signs mean nothing while the queue is full of noise.
        let early = StepStatistics { global_step: 3, ..step };
        assert!(run(early, Some(SEEN), 200).findings.is_empty(), "{expected}");
        // Where no line is ever due nobody looks.
        assert!(run(step, None, Health::LATEST - 1).findings.is_empty(), "{expected}");
        assert_eq!(run(step, None, Health::LATEST).findings.len(), 1, "{expected}");
    }
    // A collapse by a learning rate is reported as that of the learning rate.
    let drift = WeightNumbers { query_drift: 0.3, ..SEEN.weights };
    let report = run(collapse(), Some(Inspection { weights: drift, ..SEEN }), 15);
    let why = "rate too high: a step changes weights by 30 %; lower optim.base_lr, or add optim.warmup_epochs";
    assert_eq!(texts(&report), [why]);
    assert_eq!(report.why_collapsed().map(ToString::to_string).as_deref(), Some(why));
    let report = run(collapse(), Some(SEEN), 15);
    assert_eq!(report.why_collapsed().map(ToString::to_string).as_deref(), Some(collapsed));
    assert_eq!(run(at_chance, Some(SEEN), 15).why_collapsed(), None);
}

#[test]
fn one_good_step_resets_the_patience() {
    let mut health = health(1000);
    for i in 0..50 {
        health.inspect(&SEEN);
        let step = if i % 9 == 8 { GOOD } else { collapse() };
        assert!(health.observe(&step).findings.is_empty());
    }
}

#[test]
fn the_settings_are_judged_before_the_first_step() {
    let at_start = |health: &Health| -> Vec<String> {
        health.at_start().iter().map(ToString::to_string).collect()
    };
    let covered = "a queue of 100 for 100 images; use a moco.queue_size below the number of images";
    assert_eq!(at_start(&health(100)), [covered]);
    assert_eq!(at_start(&health(101)), [""; 0]);
    assert!(health(100).observe(&GOOD).findings[0].to_string() == covered);
    let off = MocoConfig { shuffle_bn: false, ..CONFIG };
    let groups = "batch norm has 8 groups, no shuffled keys; set moco.shuffle_bn = true, unless this is the control of v1 A.9";
    assert_eq!(at_start(&Health::new(&off, 10, 8, 1000)), [groups]);
    assert_eq!(at_start(&Health::new(&off, 10, 1, 1000)), [""; 0]);
}

#[test]
fn a_leak_is_measured_where_it_can_be() {
    let measures = |shuffle_bn, bn_groups, top1, looks: u32| {
        let config = MocoConfig { shuffle_bn, ..CONFIG };
        let mut health = Health::new(&config, 10, bn_groups, 1000);
        health.observe(&StepStatistics { pretext_top1: top1, ..GOOD });
        (0..looks).for_each(|_| health.inspect(&Inspection { leak: None, ..SEEN }));
        let first = health.suspects_leak();
        health.inspect(&SEEN);
        (first, health.suspects_leak())
    };
    let (yes, no) = (MeasureLeak::Yes, MeasureLeak::No);
    assert_eq!(measures(true, 2, 60.0, 0), (yes, no), "then three looks pass");
    assert_eq!(measures(true, 2, 40.0, 0), (no, no), "few positives are found");
    assert_eq!(measures(false, 2, 40.0, 0), (yes, no), "the keys are not shuffled");
    assert_eq!(measures(true, 1, 60.0, 0), (no, no), "there are no groups");
    let mut health = health(1000);
    health.observe(&GOOD);
    let leak = Some(Leak { top1_as_trained: 100.0, top1_in_other_groups: 0.0 });
    (0..2).for_each(|_| health.inspect(&Inspection { leak, ..SEEN }));
    assert_eq!(health.suspects_leak(), yes, "what was seen once is looked at again");
}
