//! A pretrained encoder from a checkpoint, and its features.

use std::sync::Arc;

use moco::{Execution, Mechanism};
use moco_feed::Placement;
use moco_ingest::Source;

use crate::components::{build_encoder, build_model};
use crate::error::TrainError;
use crate::features::{Encoded, encode};
use crate::measure::evaluation_recipe;
use crate::plan::PretrainPlan;
use crate::snapshot::SavedRun;
use crate::sources::{DataAccess, DataPlan, open_sources};

/// A model from a checkpoint, with the plan that it was trained by.
#[derive(Debug)]
pub struct TrainedEncoder {
    /// Query encoder and all else.
    pub model: Box<dyn Mechanism>,
    /// The plan.
    pub plan: PretrainPlan,
    /// Where the images of the run are.
    pub data: DataPlan,
    /// The device that holds the model, and the type of the activations while
    /// [`TrainedEncoder::labeled_features`] computes.
    pub placement: Placement,
}

impl TrainedEncoder {
    /// The model of a checkpoint. `plan` and `data` are those of the config inside it, which the crate of
    /// configs reads.
    ///
    /// # Errors
    /// If the checkpoint's tensors are not those of the plan's model, or the device has no room.
    pub fn new(
        saved: &SavedRun,
        plan: PretrainPlan,
        data: DataPlan,
        placement: Placement,
    ) -> Result<Self, TrainError> {
        let encoder = build_encoder(&plan, candle_core::DType::F32, &placement.device)?;
        let mut model = build_model(&plan, encoder, Execution::Eager)?;
        model.load_state(&saved.tensors, saved.global_step)?;
        Ok(Self { model, plan, data, placement })
    }

    /// Features of the run's training and test images, in this order, with the plan's policy for images that
    /// cannot be used.
    ///
    /// # Errors
    /// If the images have no labels, or cannot be read.
    pub fn labeled_features(&mut self, access: DataAccess<'_>) -> Result<[Encoded; 2], TrainError> {
        let DataAccess { open_store, preparing } = access;
        let opening = DataAccess { open_store, preparing: &mut *preparing };
        let sources = open_sources(&self.data, self.plan.workers, opening)?;
        let labeled = sources.labeled.ok_or(TrainError::NoLabels)?;
        let augmentation = evaluation_recipe(&self.plan)?;
        let stages = self.plan.view_stages(self.placement.clone());
        let encoder = self.model.encoder_q_mut().encoder_mut();
        let on_bad_sample = self.plan.on_bad_sample;
        let mut features = |split: &str, source: &Arc<dyn Source>| {
            let (what, total) = (format!("{split} images encoded"), source.len());
            let mut progress = |done| preparing(&what, done, total);
            encode(encoder, source, &augmentation, &stages, on_bad_sample, &mut progress)
        };
        Ok([features("training", &labeled.train)?, features("test", &labeled.test)?])
    }
}
