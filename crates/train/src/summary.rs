//! `summary.json`: the numbers a run is judged by.

use serde::{Deserialize, Serialize};

use crate::measure::Measured;

/// One accuracy for each of the three feature extractors, in percent; `None` where not measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Trio {
    /// The pixels themselves.
    pub pixels: Option<f64>,
    /// The encoder before training, with calibrated batch norm.
    pub random: Option<f64>,
    /// The encoder after training.
    pub trained: Option<f64>,
}

/// The summary of a finished run.
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
    pub(crate) fn put(&mut self, which: fn(&mut Trio) -> &mut Option<f64>, measured: Measured) {
        *which(&mut self.knn) = Some(measured.knn);
        *which(&mut self.linear) = Some(measured.linear);
    }
}
