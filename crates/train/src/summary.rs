//! `summary.json`: the numbers a run is judged by.

use serde::{Deserialize, Serialize};

use crate::plan::{EvaluationActivations, EvaluationPlan, LinearPlan};

/// Whose features are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extractor {
    /// The pixels themselves.
    Pixels,
    /// The encoder before training, with calibrated batch norm.
    Random,
    /// The encoder after training.
    Trained,
}

impl Extractor {
    /// What a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pixels => "raw pixels",
            Self::Random => "random encoder",
            Self::Trained => "trained encoder",
        }
    }
}

/// How features are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// By the kNN vote.
    Knn,
    /// By a linear classifier.
    Linear,
}

impl Measure {
    /// What a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Knn => "kNN",
            Self::Linear => "linear classifier",
        }
    }
}

/// One value for each of the three feature extractors, accuracies in percent; `None` where not measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trio<T = f64> {
    /// The pixels themselves.
    pub pixels: Option<T>,
    /// The encoder before training, with calibrated batch norm.
    pub random: Option<T>,
    /// The encoder after training.
    pub trained: Option<T>,
}

impl<T> Default for Trio<T> {
    fn default() -> Self {
        Self { pixels: None, random: None, trained: None }
    }
}

impl<T> Trio<T> {
    /// That of one of them.
    #[must_use]
    pub fn of(&self, extractor: Extractor) -> Option<&T> {
        match extractor {
            Extractor::Pixels => self.pixels.as_ref(),
            Extractor::Random => self.random.as_ref(),
            Extractor::Trained => self.trained.as_ref(),
        }
    }

    pub(crate) fn put(&mut self, extractor: Extractor, value: T) {
        *match extractor {
            Extractor::Pixels => &mut self.pixels,
            Extractor::Random => &mut self.random,
            Extractor::Trained => &mut self.trained,
        } = Some(value);
    }
}

/// The images that accuracies are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCounts {
    /// Training images with a label: the bank of the vote and what the classifier is trained on.
    pub train: u64,
    /// Test images with a label.
    pub test: u64,
    /// Images of both splits that could not be used; `bad_samples.txt` lists them.
    pub skipped: u64,
}

/// Something that was tried and failed; a resume tries it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Whose features.
    pub extractor: Extractor,
    /// Which measure; `None` if there are no features.
    pub measure: Option<Measure>,
    /// The error with its causes.
    pub reason: String,
}

/// Something that is not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Whose features.
    pub extractor: Extractor,
    /// Why.
    pub reason: String,
}

/// The keys `evaluate.*` that accuracies depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `evaluate.resize`.
    pub resize: u32,
    /// `evaluate.activations`.
    pub activations: String,
    /// `evaluate.linear_epochs`.
    pub linear_epochs: u64,
    /// `evaluate.linear_batch_size`.
    pub linear_batch_size: usize,
    /// `evaluate.linear_lr`.
    pub linear_lr: f64,
    /// `evaluate.linear_milestones`.
    pub linear_milestones: Vec<u32>,
    /// `evaluate.linear_sgd_momentum`.
    pub linear_sgd_momentum: f64,
    /// `evaluate.linear_weight_decay`.
    pub linear_weight_decay: f64,
}

impl Settings {
    pub(crate) fn of(plan: &EvaluationPlan) -> Self {
        let LinearPlan { epochs, batch_size, lr, milestones, sgd_momentum, weight_decay } =
            plan.linear.clone();
        let activations = match plan.activations {
            EvaluationActivations::F32 => "f32",
            EvaluationActivations::AsTrained => "as_trained",
        };
        Self {
            resize: plan.resize,
            activations: activations.to_owned(),
            linear_epochs: epochs,
            linear_batch_size: batch_size,
            linear_lr: lr,
            linear_milestones: milestones,
            linear_sgd_momentum: sgd_momentum,
            linear_weight_decay: weight_decay,
        }
    }

    /// Whether features under both are the same.
    fn has_features_of(&self, other: &Self) -> bool {
        (self.resize, &self.activations) == (other.resize, &other.activations)
    }
}

/// The summary of a run whose training is finished; it grows with each part of the evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// kNN accuracy.
    pub knn: Trio,
    /// Neighbors of the vote.
    pub knn_n_neighbors: usize,
    /// Temperature of the vote.
    pub knn_temperature: f64,
    /// Accuracy of the linear classifier.
    pub linear: Trio,
    /// The images that they are of; older summaries lack it.
    #[serde(default)]
    pub images: Trio<ImageCounts>,
    /// What failed.
    #[serde(default)]
    pub failed: Vec<Failed>,
    /// What is not measured.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// The settings of the accuracies; older summaries lack them, and have those of the run's config.
    #[serde(default)]
    pub evaluate: Option<Settings>,
    /// Optimizer updates.
    pub steps: u64,
    /// Images a second of training, evaluation not counted.
    pub images_per_second: f64,
    /// Seconds of the whole run with evaluation, over all its sessions.
    pub wall_seconds: f64,
    /// Most memory the process held; `None` where the system does not report it.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory in use on the device; `None` on the CPU.
    pub peak_device_memory_bytes: Option<u64>,
    /// The last checkpoint, relative to the run folder.
    pub final_checkpoint: String,
    /// The id of the run; `None` in summaries from before runs had one.
    #[serde(default)]
    pub run_id: Option<String>,
    /// The run whose encoders and queue this one began with.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// Each time the run was made longer.
    #[serde(default)]
    pub extensions: Vec<Extension>,
}

/// The origin of a forked run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Name of the other run.
    pub run: String,
    /// Its id; `None` for a run from before there were any.
    pub run_id: Option<String>,
    /// The step of its checkpoint.
    pub step: u64,
}

/// A run was made longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Steps done at that time.
    pub at_step: u64,
    /// Steps of the whole run until then.
    pub from_steps: u64,
    /// And from then on.
    pub to_steps: u64,
}

impl Summary {
    /// That of a run after its last step, without accuracies.
    pub(crate) fn new(plan: &EvaluationPlan, steps: u64, images_per_second: f64) -> Self {
        Self {
            knn: Trio::default(),
            knn_n_neighbors: plan.knn.n_neighbors,
            knn_temperature: plan.knn.temperature,
            linear: Trio::default(),
            images: Trio::default(),
            failed: Vec::new(),
            left_out: Vec::new(),
            evaluate: Some(Settings::of(plan)),
            steps,
            images_per_second,
            wall_seconds: 0.0,
            peak_memory_bytes: None,
            peak_device_memory_bytes: None,
            final_checkpoint: format!("checkpoints/step-{steps:010}.safetensors"),
            run_id: None,
            parent: None,
            extensions: Vec::new(),
        }
    }

    /// The measures of an extractor that a plan asks for and that are neither there nor left out.
    pub(crate) fn missing(&self, extractor: Extractor, plan: &EvaluationPlan) -> Vec<Measure> {
        let is_left_out = self.left_out.iter().any(|left_out| left_out.extractor == extractor);
        if !plan.at_end || is_left_out {
            return Vec::new();
        }
        let measures = [(Measure::Knn, &self.knn), (Measure::Linear, &self.linear)];
        let missing = measures.into_iter().filter(|(_, trio)| trio.of(extractor).is_none());
        missing.map(|(measure, _)| measure).collect()
    }

    /// Whether nothing is missing.
    pub(crate) fn is_complete(&self, plan: &EvaluationPlan) -> bool {
        let extractors = [Extractor::Pixels, Extractor::Random, Extractor::Trained];
        extractors.into_iter().all(|extractor| self.missing(extractor, plan).is_empty())
    }

    /// The summary without accuracies of other settings than the plan's, which are to be measured again, and
    /// with the plan's settings.
    pub(crate) fn under(mut self, plan: &EvaluationPlan) -> Self {
        let settings = Settings::of(plan);
        let old = self.evaluate.clone().unwrap_or_else(|| settings.clone());
        let has_features = old.has_features_of(&settings);
        let knn = (self.knn_n_neighbors, self.knn_temperature);
        if !has_features || knn != (plan.knn.n_neighbors, plan.knn.temperature) {
            self.knn = Trio::default();
        }
        if !has_features || old != settings {
            self.linear = Trio::default();
        }
        (self.knn_n_neighbors, self.knn_temperature) = (plan.knn.n_neighbors, plan.knn.temperature);
        self.evaluate = Some(settings);
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::KnnPlan;

    use super::*;

    fn plan() -> EvaluationPlan {
        EvaluationPlan {
            at_end: true,
            knn: KnnPlan { n_neighbors: 200, temperature: 0.1 },
            resize: 32,
            activations: EvaluationActivations::F32,
            monitor_bank: 0,
            linear: LinearPlan {
                epochs: 100,
                batch_size: 256,
                lr: 30.0,
                milestones: vec![60, 80],
                sgd_momentum: 0.9,
                weight_decay: 0.0,
            },
        }
    }

    /// As a program before this one wrote it.
    fn old() -> Summary {
        let text = r#"{
            "knn": {"pixels": 1.0, "random": 2.0, "trained": 3.0},
            "knn_n_neighbors": 200, "knn_temperature": 0.1,
            "linear": {"pixels": 4.0, "random": null, "trained": 6.0},
            "steps": 5, "images_per_second": 7.0, "wall_seconds": 8.0,
            "peak_memory_bytes": null, "peak_device_memory_bytes": null,
            "final_checkpoint": "x"
        }"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_neither_there_nor_left_out_is_missing() {
        let mut summary = old();
        assert_eq!(summary.missing(Extractor::Random, &plan()), [Measure::Linear]);
        assert_eq!(summary.missing(Extractor::Trained, &plan()), []);
        assert!(!summary.is_complete(&plan()));
        assert!(summary.is_complete(&EvaluationPlan { at_end: false, ..plan() }));
        let reason = "too large".to_owned();
        summary.left_out.push(LeftOut { extractor: Extractor::Random, reason });
        assert!(summary.is_complete(&plan()));
    }

    #[test]
    fn accuracies_of_other_settings_are_measured_again() {
        let measured = |plan: EvaluationPlan| {
            let summary = old().under(&self::plan()).under(&plan);
            assert_eq!(summary.evaluate, Some(Settings::of(&plan)));
            assert_eq!(summary.knn_n_neighbors, plan.knn.n_neighbors);
            (summary.knn.trained, summary.linear.trained)
        };
        let (knn, linear) = (Some(3.0), Some(6.0));
        assert_eq!(measured(plan()), (knn, linear));
        let knn_plan = KnnPlan { n_neighbors: 20, temperature: 0.1 };
        assert_eq!(measured(EvaluationPlan { knn: knn_plan, ..plan() }), (None, linear));
        let linear_plan = LinearPlan { lr: 0.1, ..plan().linear };
        assert_eq!(measured(EvaluationPlan { linear: linear_plan, ..plan() }), (knn, None));
        assert_eq!(measured(EvaluationPlan { resize: 64, ..plan() }), (None, None));
        let activations = EvaluationActivations::AsTrained;
        assert_eq!(measured(EvaluationPlan { activations, ..plan() }), (None, None));
    }
}
