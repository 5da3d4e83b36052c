//! Is the run healthy? Bounds of the loss from first principles, and alarms.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::config::MocoConfig;
use crate::statistics::StepStatistics;

/// The loss of an encoder that cannot distinguish keys: ln(K + 1).
#[must_use]
pub fn chance_loss(queue_size: usize) -> f64 {
    count(queue_size + 1).ln()
}

/// The loss when query and positive agree fully and the K negatives are spread evenly over the sphere:
/// ln(1 + exp(L − 1/τ)) with L = ln K + 1/(2·dim·τ²), the expected log-sum-exp of K random unit keys.
/// A good run cannot go far below it; 6.19 for v2 on ImageNet.
#[must_use]
pub fn floor_loss(queue_size: usize, dim: usize, temperature: f64) -> f64 {
    let log_sum = count(queue_size).ln() + 1.0 / (2.0 * count(dim) * temperature * temperature);
    (log_sum - 1.0 / temperature).exp().ln_1p()
}

/// Something is wrong. In `metrics.jsonl` its name is in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// All features are equal: the negatives are as close as the positives.
    Collapse,
    /// The positives are found too easily: batch statistics leak which keys belong together.
    BnLeak,
    /// The loss has stayed at chance since the queue was filled.
    NotLearning,
    /// The queue is as large as the data set: an image's own old keys are among its negatives.
    QueueCoversData,
}

impl Alarm {
    /// Its meaning, and a hint for the user.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Collapse => {
                "collapse: queries are as close to negatives as to positives; lower \
                 optim.base_lr, raise moco.key_momentum, or check that the views differ"
            }
            Self::BnLeak => {
                "pretext accuracy above 99.9 % at a loss far below what features can explain: \
                 batch norm leaks; set moco.shuffle_bn = true and encoder.bn_groups of at least 2"
            }
            Self::NotLearning => {
                "the loss has stayed at chance, ln(K + 1), since the queue was filled; raise \
                 optim.base_lr, or lower moco.key_momentum for short runs"
            }
            Self::QueueCoversData => {
                "moco.queue_size is at least the number of images: each image meets its own old \
                 keys as negatives; use a smaller one"
            }
        }
    }
}

/// A verdict on a log line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    /// Share of real keys in the queue, in percent. While it is below 100 the queue still holds random keys:
    /// the loss starts low and rises, and the accuracy falls, as expected.
    pub queue_filled_percent: u8,
    /// ln(K + 1).
    pub chance_loss: f64,
    /// The least loss to expect.
    pub floor_loss: f64,
    /// The alarms that are on.
    pub alarms: BTreeSet<Alarm>,
}

/// Watches a run. An alarm needs [`Health::PATIENCE`] observations in a row, so that one odd batch is
/// no alarm.
#[derive(Debug)]
pub struct Health {
    /// Keys that must have come in before the negatives are real ones.
    keys_to_fill: usize,
    n_directions: usize,
    keys_per_step: usize,
    chance: f64,
    floor: f64,
    n_images: u64,
    collapsed: u32,
    leaking: u32,
    at_chance: u32,
}

impl Health {
    /// Observations in a row that make an alarm.
    pub const PATIENCE: u32 = 10;

    /// A watch over a run with these settings on `n_images` images.
    #[must_use]
    pub fn new(config: &MocoConfig, batch_size: usize, n_images: u64) -> Self {
        let n_negatives = config.n_negatives(batch_size);
        Self {
            keys_to_fill: config.n_kept_keys(),
            n_directions: config.n_directions(),
            keys_per_step: batch_size * config.n_directions(),
            chance: chance_loss(n_negatives),
            floor: floor_loss(n_negatives, config.dim, config.temperature),
            n_images,
            collapsed: 0,
            leaking: 0,
            at_chance: 0,
        }
    }

    /// Judges a step by its statistics and those before.
    pub fn observe(&mut self, step: &StepStatistics) -> HealthReport {
        let keys = step.global_step.saturating_mul(self.keys_per_step as u64);
        let percent = keys.saturating_mul(100).checked_div(self.keys_to_fill as u64);
        let percent = percent.map_or(100, |percent| percent.min(100));
        let queue_filled_percent = u8::try_from(percent).unwrap_or(100);
        let is_full = queue_filled_percent == 100;
        let loss = step.loss / count(self.n_directions);
        let gap = step.positive_cosine - step.negative_cosine;
        let in_a_row = |counter: &mut u32, holds: bool| {
            *counter = if holds { counter.saturating_add(1) } else { 0 };
            *counter >= Self::PATIENCE
        };
        // Real keys are needed: random ones are far from everything, whatever the encoder does.
        let collapsed = is_full && step.negative_cosine > 0.98 && gap < 0.01;
        let leaking = is_full && step.pretext_top1 > 99.9;
        let at_chance = is_full && (loss - self.chance).abs() < 0.002 * self.chance;
        let mut alarms = BTreeSet::new();
        for (alarm, rings) in [
            (Alarm::Collapse, in_a_row(&mut self.collapsed, collapsed)),
            (Alarm::BnLeak, in_a_row(&mut self.leaking, leaking)),
            (Alarm::NotLearning, in_a_row(&mut self.at_chance, at_chance && !collapsed)),
            (Alarm::QueueCoversData, self.keys_to_fill as u64 >= self.n_images),
        ] {
            if rings {
                alarms.insert(alarm);
            }
        }
        HealthReport {
            queue_filled_percent,
            chance_loss: self.chance,
            floor_loss: self.floor,
            alarms,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "queue sizes stay far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueuePrecision;
    use crate::config::MechanismKind;

    fn health(n_images: u64) -> Health {
        let config = MocoConfig {
            mechanism: MechanismKind::Queue,
            queue_size: 100,
            key_momentum: 0.99,
            temperature: 0.2,
            dim: 16,
            symmetric: false,
            shuffle_bn: true,
            queue_precision: QueuePrecision::AsParameters,
        };
        Health::new(&config, 10, n_images)
    }

    const GOOD: StepStatistics = StepStatistics {
        global_step: 50,
        loss: 3.0,
        pretext_top1: 60.0,
        pretext_top5: 80.0,
        positive_cosine: 0.8,
        negative_cosine: 0.1,
    };

    /// Observes the same statistics until an alarm could ring.
    fn after(n: u32, step: StepStatistics) -> BTreeSet<Alarm> {
        let mut health = health(1000);
        (0..n).map(|_| health.observe(&step).alarms).last().unwrap()
    }

    /// Numbers computed from the formulas in the papers' setting.
    #[test]
    fn bounds_of_the_loss() {
        assert!((chance_loss(65_536) - 11.0904).abs() < 1e-4);
        assert!((chance_loss(4_096) - 8.3180).abs() < 1e-4);
        assert!((floor_loss(65_536, 128, 0.2) - 6.190).abs() < 1e-3);
        assert!((floor_loss(65_536, 128, 0.07) - 0.087).abs() < 1e-3);
        assert!((floor_loss(4_096, 128, 0.1) - 0.243).abs() < 1e-3);
    }

    #[test]
    fn a_good_run_has_no_alarm() {
        assert!(after(100, GOOD).is_empty());
    }

    #[test]
    fn the_queue_fills_in_the_expected_number_of_steps() {
        let mut health = health(1000);
        let mut filled = |global_step| {
            health.observe(&StepStatistics { global_step, ..GOOD }).queue_filled_percent
        };
        assert_eq!(filled(0), 0);
        assert_eq!(filled(7), 70);
        assert_eq!(filled(10), 100);
        assert_eq!(filled(u64::MAX), 100);
    }

    #[test]
    fn each_fault_rings_its_alarm_after_the_patience_and_not_before() {
        let collapse = StepStatistics {
            positive_cosine: 1.0,
            negative_cosine: 1.0,
            loss: chance_loss(100),
            ..GOOD
        };
        let leak = StepStatistics { pretext_top1: 100.0, ..GOOD };
        let stuck = StepStatistics { loss: chance_loss(100), ..GOOD };
        for (step, alarm) in
            [(collapse, Alarm::Collapse), (leak, Alarm::BnLeak), (stuck, Alarm::NotLearning)]
        {
            assert!(after(Health::PATIENCE - 1, step).is_empty(), "{alarm:?}");
            assert_eq!(after(Health::PATIENCE, step), BTreeSet::from([alarm]));
            // The same signs mean nothing while the queue is full of noise.
            assert!(after(100, StepStatistics { global_step: 3, ..step }).is_empty(), "{alarm:?}");
        }
    }

    #[test]
    fn one_good_step_resets_the_patience() {
        let mut health = health(1000);
        let leak = StepStatistics { pretext_top1: 100.0, ..GOOD };
        for i in 0..50 {
            let step = if i % 9 == 8 { GOOD } else { leak };
            assert!(health.observe(&step).alarms.is_empty());
        }
    }

    #[test]
    fn a_queue_as_large_as_the_data_is_reported() {
        assert!(health(100).observe(&GOOD).alarms.contains(&Alarm::QueueCoversData));
        assert!(!health(101).observe(&GOOD).alarms.contains(&Alarm::QueueCoversData));
    }
}
