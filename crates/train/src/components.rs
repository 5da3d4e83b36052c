//! The exchangeable components of a run, and the ones that a plan describes.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device};
use moco::{Execution, Mechanism, build_mechanism};
use moco_augment::{Augmentation, Fidelity, Recipe, RecipeConfig};
use moco_encoders::Encoder;
use moco_feed::FinishOn;

use crate::error::TrainError;
use crate::plan::PretrainPlan;
use crate::sources::{DataAccess, DataPlan, Sources, open_sources};

/// The exchangeable components of a run: put your own in.
pub struct Components {
    /// Images.
    pub sources: Sources,
    /// The augmentation, which makes two views of an image.
    pub augmentation: Arc<dyn Augmentation>,
    /// The backbone with its initial values, on the device that is to train it; the head comes from the
    /// plan.
    pub encoder: Box<dyn Encoder>,
}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Components {
    /// Builds the plan's encoder on `device` and opens its data. To bring some of your own, fill the
    /// fields with what [`build_encoder`], [`open_sources`] and [`training_recipe`] give, and your own.
    ///
    /// # Errors
    /// If a setting of the plan needs a GPU and `device` is a CPU, the device has no room, or files are
    /// missing or not what they should be.
    pub fn from_plan(
        plan: &PretrainPlan,
        data: &DataPlan,
        recipe: Recipe,
        device: &Device,
        access: DataAccess<'_>,
    ) -> Result<Self, TrainError> {
        if let (true, Some(setting)) = (device.is_cpu(), needs_gpu(plan)) {
            return Err(TrainError::NeedsGpu { setting });
        }
        let encoder = build_encoder(plan, DType::F32, device)?;
        let sources = open_sources(data, plan.workers, access)?;
        Ok(Self { sources, augmentation: Arc::new(recipe), encoder })
    }
}

/// A setting that a CPU cannot follow.
fn needs_gpu(plan: &PretrainPlan) -> Option<&'static str> {
    [
        (plan.input.finish_on == FinishOn::Gpu, "augment.finish_on = \"gpu\""),
        (plan.cuda_graph, "run.cuda_graph = true"),
    ]
    .into_iter()
    .find_map(|(is_set, setting)| is_set.then_some(setting))
}

/// The plan's backbone with its initial values of type `dtype` (f32 or f64) on `device`.
///
/// # Errors
/// If the device has no room.
pub fn build_encoder(
    plan: &PretrainPlan,
    dtype: DType,
    device: &Device,
) -> Result<Box<dyn Encoder>, TrainError> {
    Ok(plan.encoder.build(plan.seed, dtype, device)?)
}

/// The plan's model at its start: `encoder` with a new head, and all else that the mechanism holds.
pub(crate) fn build_model(
    plan: &PretrainPlan,
    encoder: Box<dyn Encoder>,
    execution: Execution,
) -> Result<Box<dyn Mechanism>, TrainError> {
    let PretrainPlan { head, moco, optimizer, seed, .. } = plan;
    Ok(build_mechanism(encoder, *head, moco.clone(), *optimizer, *seed, execution)?)
}

/// The augmentation of a config's training views.
///
/// # Errors
/// If its numbers are out of range.
pub fn training_recipe(config: RecipeConfig, fidelity: Fidelity) -> Result<Recipe, TrainError> {
    Ok(Recipe::new(config)?.with_fidelity(fidelity))
}
