//! Numbers of a step that distinguish one fault from another. They are measured where a log line is due, from
//! copies and samples: a run has the same bits with and without them.

mod images;
mod keys;
mod leak;
mod weights;

use moco_rng::Seed;
use serde::Serialize;

pub use self::images::ImageNumbers;
pub use self::keys::KeyNumbers;
pub use self::leak::Leak;
pub(crate) use self::leak::top1_under;
use self::weights::Sample;
pub use self::weights::WeightNumbers;
use crate::batch::Batch;
use crate::error::MocoError;
use crate::mechanism::Mechanism;

/// What a look at one step found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Inspection {
    /// The batch's images.
    #[serde(flatten)]
    pub images: ImageNumbers,
    /// The weights before and after the step.
    #[serde(flatten)]
    pub weights: WeightNumbers,
    /// The keys in the queue; `None` for a mechanism without one.
    #[serde(flatten)]
    pub keys: Option<KeyNumbers>,
    /// What other groups of batch norm did to the pretext accuracy, if it was measured.
    #[serde(flatten)]
    pub leak: Option<Leak>,
}

/// Whether to measure what other groups of batch norm do to the pretext accuracy, which costs about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasureLeak {
    /// Measure it.
    Yes,
    /// Leave it out.
    No,
}

/// Looks at steps of one run.
#[derive(Debug)]
pub struct Inspector {
    seed: Seed,
    temperature: f64,
    /// Both encoders' weights at the first look.
    start: Option<[Sample; 2]>,
}

/// What was seen before a step.
#[derive(Debug)]
pub struct BeforeStep {
    /// Query and key encoder.
    weights: [Sample; 2],
    leak: Option<Leak>,
}

impl Inspector {
    /// Looks at the steps of a run with this seed and τ.
    #[must_use]
    pub fn new(seed: Seed, temperature: f64) -> Self {
        Self { seed, temperature, start: None }
    }

    /// Looks at the model before the step on `batch`.
    ///
    /// # Errors
    /// If the images do not fit, or something failed on the device.
    pub fn before(
        &mut self,
        model: &dyn Mechanism,
        batch: &Batch,
        measure_leak: MeasureLeak,
    ) -> Result<BeforeStep, MocoError> {
        let weights = Sample::of_both(model)?;
        let leak = match measure_leak {
            MeasureLeak::Yes => Some(model.leak(self.seed, batch)?),
            MeasureLeak::No => None,
        };
        self.start.get_or_insert_with(|| weights.clone());
        Ok(BeforeStep { weights, leak })
    }

    /// Looks at the model after that step.
    ///
    /// # Errors
    /// If something failed on the device.
    pub fn after(
        &self,
        model: &dyn Mechanism,
        batch: &Batch,
        before: &BeforeStep,
    ) -> Result<Inspection, MocoError> {
        let after = Sample::of_both(model)?;
        let start = self.start.as_ref().unwrap_or(&before.weights);
        let keys = model.queue().map(|queue| KeyNumbers::of(queue, self.temperature));
        Ok(Inspection {
            images: ImageNumbers::of(batch)?,
            weights: WeightNumbers::of_step(start, &before.weights, &after),
            keys: keys.transpose()?,
            leak: before.leak,
        })
    }
}
