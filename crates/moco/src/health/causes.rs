//! The rules that find a cause in a look at a step. The words are at most 47 characters.

use crate::alarm::Alarm;
use crate::bounds::{chance_loss, count, floor_loss, random_loss};
use crate::config::{MechanismKind, MocoConfig};
use crate::inspect::{ImageNumbers, Inspection, KeyNumbers, Leak, WeightNumbers};

/// Share of a batch that makes a fault of its images, in percent.
const MOST_IMAGES: f64 = 90.0;
/// Images whose colors must have been compared.
const N_COLORS: f64 = 200.0;
/// A key encoder that goes this share of the way to the query encoder in a step remembers nothing: two steps later
/// three quarters of it are new, while the queue holds keys of K/N steps.
const FOLLOWS: f64 = 0.5;
/// A step that changes weights by this share of their length replaces them within 40. Good runs on the embedded data
/// stay below 0.012; at 100 times their learning rate it is 0.03 to 0.5 (docs/results.md).
const DRIFT: f64 = 0.025;

/// What was found of a cause, or that it was looked for in vain.
type Cause = (Alarm, Option<String>);

/// What the rules compare a look with: losses that do not depend on the run, and what earlier looks saw.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) chance: f64,
    pub(super) floor: f64,
    random: f64,
    batch_size: usize,
    has_key_momentum: bool,
    colors: Colors,
    /// The largest spread of logits that was seen.
    logit_spread: f64,
    /// Positives that were found in all experiments with batch norm's groups, and queries.
    found: Leak,
    n_queries: f64,
}

/// Sums of the images' colors over the inspections.
#[derive(Debug, Default)]
struct Colors {
    n: f64,
    own: f64,
    other: f64,
}

impl Colors {
    fn add(&mut self, images: &ImageNumbers) {
        let n = count(images.images_seen);
        self.n += n;
        self.own += n * images.own_color_distance;
        self.other += n * images.other_color_distance;
    }

    /// The correlation r of the mean colors of an image's two views, if it is that of views of different images:
    /// within three of the standard errors 1/√n that r has where there is no correlation.
    fn of_different_images(&self) -> Option<f64> {
        let correlation = 1.0 - self.own / self.other;
        let differ = self.n >= N_COLORS && self.other > 0.0 && correlation < 3.0 / self.n.sqrt();
        differ.then_some(correlation)
    }
}

impl Rules {
    pub(super) fn new(config: &MocoConfig, batch_size: usize) -> Self {
        let n_negatives = config.n_negatives(batch_size);
        Self {
            chance: chance_loss(n_negatives),
            floor: floor_loss(n_negatives, config.dim, config.temperature),
            random: random_loss(n_negatives, config.dim, config.temperature),
            batch_size,
            has_key_momentum: config.mechanism == MechanismKind::Queue,
            colors: Colors::default(),
            logit_spread: 0.0,
            found: Leak { top1_as_trained: 0.0, top1_in_other_groups: 0.0 },
            n_queries: 0.0,
        }
    }

    /// Each cause that this look was made for, with what was seen of it if it was.
    pub(super) fn causes_in(&mut self, inspection: &Inspection) -> Vec<Cause> {
        let Inspection { images, weights, keys, leak } = inspection;
        self.colors.add(images);
        self.logit_spread = self.logit_spread.max(keys.map_or(0.0, |keys| keys.logit_spread));
        let mut causes = Vec::new();
        causes.extend(self.in_images(images));
        causes.extend(self.in_logits(keys.as_ref()));
        causes.extend(self.in_weights(weights));
        causes.extend(leak.map(|leak| self.in_groups(leak)));
        causes
    }

    fn in_images(&self, images: &ImageNumbers) -> [Cause; 3] {
        let (flat, equal) = (images.flat_percent, images.equal_views_percent);
        let is_flat = flat > MOST_IMAGES;
        let is_equal = equal > MOST_IMAGES && !is_flat;
        [
            (
                Alarm::FlatImages,
                is_flat.then(|| format!("{flat:.0} % of the images have one color only")),
            ),
            (
                Alarm::EqualViews,
                is_equal.then(|| format!("{equal:.0} % of the images have two equal views")),
            ),
            (
                Alarm::ForeignViews,
                self.colors
                    .of_different_images()
                    .map(|r| format!("the two views show different images (r = {r:.2})")),
            ),
        ]
    }

    /// By the closed forms, and by what was seen. Normal logits are outweighed by a single one where their standard
    /// deviation is above √(2 ln K) (Derrida's random energy model, Phys. Rev. B 24, 1981, below its critical
    /// temperature); there random keys lose twice as much as at chance. Once weights have exploded keys are equal,
    /// so the largest spread counts.
    fn in_logits(&self, keys: Option<&KeyNumbers>) -> [Cause; 2] {
        let Self { chance, floor, random, logit_spread: spread, .. } = *self;
        let one_decides = keys.is_none() || spread > (2.0 * chance).sqrt();
        let none_decides = keys.is_none_or(|keys| keys.logit_spread < 0.5);
        let is_low = random > 2.0 * chance && one_decides;
        let is_high = floor > 0.9 * chance && none_decides;
        [
            (
                Alarm::TemperatureLow,
                is_low.then(|| {
                    format!("temperature too low: logits spread by {:.0}", limited(spread))
                }),
            ),
            (
                Alarm::TemperatureHigh,
                is_high
                    .then(|| format!("temperature too high: floor {floor:.2}, chance {chance:.2}")),
            ),
        ]
    }

    fn in_weights(&self, weights: &WeightNumbers) -> [Cause; 4] {
        let is_frozen = weights.query_moved == 0.0;
        let keys_are_frozen = self.has_key_momentum && weights.key_moved == 0.0 && !is_frozen;
        let follows = weights.key_follows.filter(|share| self.has_key_momentum && *share > FOLLOWS);
        let drift = Some(weights.query_drift).filter(|drift| *drift > DRIFT);
        let percent = |share: f64| limited(100.0 * share);
        [
            (
                Alarm::FrozenQueries,
                is_frozen.then(|| "the query encoder's weights do not change".to_owned()),
            ),
            (
                Alarm::FrozenKeys,
                keys_are_frozen
                    .then(|| "the key encoder stays, the query encoder moves".to_owned()),
            ),
            (
                Alarm::KeysFollow,
                follows
                    .map(|x| format!("the key encoder follows by {:.0} % in one step", percent(x))),
            ),
            (
                Alarm::RateHigh,
                drift.map(|x| {
                    format!("rate too high: a step changes weights by {:.0} %", percent(x))
                }),
            ),
        ]
    }

    /// Over all experiments, since a batch is small: without a leak two groupings find as many positives, up to the
    /// root of those that only one of them finds, and that four times over does not happen.
    fn in_groups(&mut self, leak: Leak) -> Cause {
        let n = count(self.batch_size);
        self.n_queries += n;
        self.found.top1_as_trained += n * leak.top1_as_trained / 100.0;
        self.found.top1_in_other_groups += n * leak.top1_in_other_groups / 100.0;
        let (found, regrouped) = (self.found.top1_as_trained, self.found.top1_in_other_groups);
        let leaks = found - regrouped > 4.0 * (found + regrouped).sqrt() && found > 1.5 * regrouped;
        let percent = |found: f64| 100.0 * found / self.n_queries;
        let what = leaks.then(|| {
            let (from, to) = (percent(found), percent(regrouped));
            format!("batch norm leaks: regrouped, top-1 {from:.0} to {to:.0} %")
        });
        (Alarm::BnLeak, what)
    }
}

/// A number with at most four digits before the point: what has exploded says no more with more of them.
fn limited(x: f64) -> f64 {
    x.min(9999.0)
}
