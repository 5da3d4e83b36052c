//! The alarms: what they are called, and what to do.

use serde::{Serialize, Serializer};

/// Something is wrong: first the causes, in the order in which one explains the others, then what comes of
/// causes unknown. In `metrics.jsonl` its name is in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// The images have one color only.
    FlatImages,
    /// The two views of an image have equal pixels.
    EqualViews,
    /// The two views show different images.
    ForeignViews,
    /// τ is so small that a single negative outweighs all others.
    TemperatureLow,
    /// τ is so large that the loss hardly depends on the features.
    TemperatureHigh,
    /// The query encoder does not change.
    FrozenQueries,
    /// The key encoder does not follow the query encoder.
    FrozenKeys,
    /// The key encoder follows the query encoder at once.
    KeysFollow,
    /// A step changes the query encoder's weights too much.
    RateHigh,
    /// The positives are found by batch norm's statistics.
    BnLeak,
    /// All features are equal: the negatives are as close as the positives.
    Collapse,
    /// The loss has stayed at chance since the queue was filled.
    NotLearning,
    /// Batch norm has groups, and the keys are not shuffled over them.
    ShuffleOff,
    /// The queue is as large as the data set: an image's own old keys are among its negatives.
    QueueCoversData,
}

impl Alarm {
    /// Every alarm.
    pub const ALL: [Self; 14] = [
        Self::FlatImages,
        Self::EqualViews,
        Self::ForeignViews,
        Self::TemperatureLow,
        Self::TemperatureHigh,
        Self::FrozenQueries,
        Self::FrozenKeys,
        Self::KeysFollow,
        Self::RateHigh,
        Self::BnLeak,
        Self::Collapse,
        Self::NotLearning,
        Self::ShuffleOff,
        Self::QueueCoversData,
    ];

    /// What to do, in at most 73 characters.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::FlatImages => "look at the images and at augment.*: cargo xtask preview",
            Self::EqualViews => {
                "the augmentation must draw each view: augment.*, cargo xtask preview"
            }
            Self::ForeignViews => {
                "augment.pairing = \"same_image\", or an augmentation that pairs views"
            }
            Self::TemperatureLow => "raise moco.temperature; the papers use 0.07 to 0.5",
            Self::TemperatureHigh => "lower moco.temperature; the papers use 0.07 to 0.5",
            Self::FrozenQueries => {
                "raise optim.base_lr, or look at the schedule: metrics.jsonl has lr"
            }
            Self::FrozenKeys => "lower moco.key_momentum below 1",
            Self::KeysFollow => "raise moco.key_momentum: keys of older encoders do not compare",
            Self::RateHigh => "lower optim.base_lr, or add optim.warmup_epochs",
            Self::BnLeak => "shuffle over more groups: moco.shuffle_bn, encoder.bn_groups",
            Self::Collapse => "lower optim.base_lr or raise moco.key_momentum; views must differ",
            Self::NotLearning => "raise optim.base_lr; in a short run lower moco.key_momentum",
            Self::ShuffleOff => "set moco.shuffle_bn = true, unless this is the control of v1 A.9",
            Self::QueueCoversData => "use a moco.queue_size below the number of images",
        }
    }
}

/// An alarm that is on, with the numbers of the run that rang it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The alarm.
    pub alarm: Alarm,
    /// What was seen, in at most 47 characters.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.alarm.hint())
    }
}

/// A finding is written by its name.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.alarm.serialize(serializer)
    }
}
