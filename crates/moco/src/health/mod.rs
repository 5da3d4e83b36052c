//! Is the run healthy? Phases and alarms, from the run's own numbers: no rule compares a setting with that of a
//! recipe.

mod causes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use self::causes::Rules;
use crate::alarm::{Alarm, Finding};
use crate::bounds::count;
use crate::config::MocoConfig;
use crate::inspect::{Inspection, MeasureLeak};
use crate::statistics::StepStatistics;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The queue still holds random keys, which are easy to distinguish from a positive: the loss starts low and
    /// rises, and the accuracy falls, as expected.
    Filling,
    /// The loss is not below chance yet.
    AtChance,
    /// The loss is below chance.
    Learning,
    /// The loss is within a tenth of the way from the floor to chance.
    NearFloor,
}

/// A verdict on a log line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    /// Share of real keys in the queue, in percent.
    pub queue_filled_percent: u8,
    /// ln(K + 1).
    pub chance_loss: f64,
    /// The least loss to expect.
    pub floor_loss: f64,
    /// Where the run is.
    pub phase: Phase,
    /// The alarms that are on, the cause first.
    #[serde(rename = "alarms")]
    pub findings: Vec<Finding>,
    /// Whether the features of all images are equal, whatever the cause.
    #[serde(skip)]
    pub is_collapsed: bool,
}

impl HealthReport {
    /// Why the features of all images are equal, if they are and it is time to say so: the first cause that was
    /// found, or the collapse itself.
    #[must_use]
    pub fn why_collapsed(&self) -> Option<&Finding> {
        let is_why = |finding: &&Finding| finding.alarm <= Alarm::Collapse;
        self.findings.iter().find(is_why).filter(|_| self.is_collapsed)
    }
}

/// Watches a run. An alarm needs several observations in a row, so that one odd batch is no alarm.
#[derive(Debug)]
pub struct Health {
    config: MocoConfig,
    batch_size: usize,
    bn_groups: usize,
    n_images: u64,
    rules: Rules,
    collapsed: Symptom,
    at_chance: Symptom,
    /// Inspections in a row that saw a cause.
    seen: BTreeMap<Alarm, u32>,
    /// Causes that have rung; symptoms that follow are theirs.
    causes: BTreeMap<Alarm, String>,
    /// Effective rank of the queue at the last look.
    effective_rank: Option<f64>,
    looks_since_leak: u32,
    /// The pretext accuracy of the last step.
    top1: f64,
    is_full: bool,
}

/// Something that has a cause: observations of it in a row, and looks for its cause meanwhile.
#[derive(Debug, Default)]
struct Symptom {
    steps: u32,
    looks: u32,
}

impl Symptom {
    /// The cause has been looked for long enough, or for too long.
    fn rings(&self, seen: &BTreeMap<Alarm, u32>) -> bool {
        let is_unexplained = self.looks >= Health::LOOKS && seen.is_empty();
        self.steps >= Health::PATIENCE && (is_unexplained || self.steps >= Health::LATEST)
    }
}

impl Health {
    /// Steps in a row that make an alarm.
    pub const PATIENCE: u32 = 10;
    /// Inspections in a row that make an alarm.
    pub const LOOKS: u32 = 3;
    /// Steps after which a symptom is reported although fewer inspections than [`Health::LOOKS`] were made.
    pub const LATEST: u32 = 100;
    /// Of so many inspections one measures what the groups of batch norm give away.
    const LEAK_EVERY: u32 = 4;

    /// A watch over a run with these settings on `n_images` images.
    #[must_use]
    pub fn new(config: &MocoConfig, batch_size: usize, bn_groups: usize, n_images: u64) -> Self {
        Self {
            config: config.clone(),
            batch_size,
            bn_groups,
            n_images,
            rules: Rules::new(config, batch_size),
            collapsed: Symptom::default(),
            at_chance: Symptom::default(),
            seen: BTreeMap::new(),
            causes: BTreeMap::new(),
            effective_rank: None,
            looks_since_leak: Self::LEAK_EVERY,
            top1: 0.0,
            // Random keys must be replaced before the negatives are real ones.
            is_full: config.n_kept_keys() == 0,
        }
    }

    /// What the settings say before the first step.
    #[must_use]
    pub fn at_start(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.bn_groups > 1 && !self.config.shuffle_bn {
            let what = format!("batch norm has {} groups, no shuffled keys", self.bn_groups);
            findings.push(Finding { alarm: Alarm::ShuffleOff, what });
        }
        if self.config.n_kept_keys() as u64 >= self.n_images {
            let what =
                format!("a queue of {} for {} images", self.config.n_kept_keys(), self.n_images);
            findings.push(Finding { alarm: Alarm::QueueCoversData, what });
        }
        findings
    }

    /// Whether the next inspection should measure what the groups of batch norm give away: now and then where they
    /// could and the positives are found, and each time once it was seen.
    #[must_use]
    pub fn suspects_leak(&self) -> MeasureLeak {
        let could = self.bn_groups > 1 && self.is_full;
        let is_likely = self.top1 > 50.0 || !self.config.shuffle_bn;
        let is_due = self.looks_since_leak >= Self::LEAK_EVERY;
        let was_seen = self.seen.contains_key(&Alarm::BnLeak);
        match could && is_likely && (is_due || was_seen) {
            true => MeasureLeak::Yes,
            false => MeasureLeak::No,
        }
    }

    /// Takes in a look at a step, before [`Health::observe`] takes in the step.
    pub fn inspect(&mut self, inspection: &Inspection) {
        self.looks_since_leak = match inspection.leak {
            Some(_) => 1,
            None => self.looks_since_leak.saturating_add(1),
        };
        for symptom in [&mut self.collapsed, &mut self.at_chance] {
            symptom.looks = symptom.looks.saturating_add(1);
        }
        self.effective_rank = inspection.keys.map(|keys| keys.effective_rank);
        for (alarm, what) in self.rules.causes_in(inspection) {
            let Some(what) = what else {
                self.seen.remove(&alarm);
                continue;
            };
            let seen = self.seen.entry(alarm).or_default();
            *seen = seen.saturating_add(1);
            if *seen >= Self::LOOKS {
                self.causes.entry(alarm).or_insert(what);
            }
        }
    }

    /// Judges a step by its statistics and all that was seen before.
    pub fn observe(&mut self, step: &StepStatistics) -> HealthReport {
        let keys_per_step = (self.batch_size * self.config.n_directions()) as u64;
        let keys = step.global_step.saturating_mul(keys_per_step);
        let percent = keys.saturating_mul(100).checked_div(self.config.n_kept_keys() as u64);
        let percent = percent.map_or(100, |percent| percent.min(100));
        let queue_filled_percent = u8::try_from(percent).unwrap_or(100);
        (self.is_full, self.top1) = (queue_filled_percent == 100, step.pretext_top1);
        let loss = step.loss / count(self.config.n_directions());
        let gap = step.positive_cosine - step.negative_cosine;
        let chance = self.rules.chance;
        // Real keys are needed: random ones are far from everything, whatever the encoder does.
        let collapsed = self.is_full && step.negative_cosine > 0.98 && gap < 0.01;
        let at_chance = self.is_full && (loss - chance).abs() < 0.002 * chance;
        for (symptom, holds) in [(&mut self.collapsed, collapsed), (&mut self.at_chance, at_chance)]
        {
            match holds {
                true => symptom.steps = symptom.steps.saturating_add(1),
                false => *symptom = Symptom::default(),
            }
        }
        HealthReport {
            queue_filled_percent,
            chance_loss: chance,
            floor_loss: self.rules.floor,
            phase: self.phase(loss),
            findings: self.findings(),
            is_collapsed: self.collapsed.steps >= Self::PATIENCE,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let causes = self.causes.iter();
        let mut findings: Vec<Finding> =
            causes.map(|(alarm, what)| Finding { alarm: *alarm, what: what.clone() }).collect();
        let rings = |symptom: &Symptom| findings.is_empty() && symptom.rings(&self.seen);
        if rings(&self.collapsed) {
            let rank =
                self.effective_rank.map_or(String::new(), |rank| format!(" (rank {rank:.1})"));
            let what = format!("collapse: all features are equal{rank}");
            findings.push(Finding { alarm: Alarm::Collapse, what });
        } else if rings(&self.at_chance) {
            let what = format!("nothing is learned: loss at chance, {:.2}", self.rules.chance);
            findings.push(Finding { alarm: Alarm::NotLearning, what });
        }
        findings.extend(self.at_start());
        findings
    }

    fn phase(&self, loss: f64) -> Phase {
        let Rules { chance, floor, .. } = self.rules;
        if !self.is_full {
            Phase::Filling
        } else if loss > 0.98 * chance {
            Phase::AtChance
        } else if loss > floor + 0.1 * (chance - floor) {
            Phase::Learning
        } else {
            Phase::NearFloor
        }
    }
}
