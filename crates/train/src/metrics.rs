//! The lines of `metrics.jsonl`.

use moco_pipeline::StageReport;
use serde::Serialize;

use crate::event::LogLine;

/// A line of `metrics.jsonl`; `step` is the number of steps done.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Step(Box<LogLine>),
    Monitor {
        step: u64,
        knn: f64,
    },
    Stage {
        step: u64,
        #[serde(flatten)]
        report: StageReport,
    },
}
