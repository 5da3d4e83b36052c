//! The lines of `metrics.jsonl`.

use moco::Phase;
use serde::Serialize;

use crate::event::{LogLine, StageLine};

/// A line of `metrics.jsonl`; `step` is the number of steps done.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Step(StepLine),
    Monitor { step: u64, knn: f64 },
    Stage(StageRecord),
}

#[derive(Debug, Serialize)]
pub(crate) struct StepLine {
    step: u64,
    epoch: u64,
    loss: f64,
    lr: f64,
    images_per_second: f64,
    pretext_top1: f64,
    pretext_top5: f64,
    positive_cosine: f64,
    negative_cosine: f64,
    data_wait_percent: f64,
    bad_samples: u64,
    chance_loss: f64,
    floor_loss: f64,
    /// Share of real keys in the queue.
    queue_filled_percent: u8,
    alarms: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct StageRecord {
    step: u64,
    stage: String,
    items: u64,
    busy_secs: f64,
    waiting_in_secs: f64,
    waiting_out_secs: f64,
}

impl Line {
    pub(crate) fn step(line: &LogLine) -> Self {
        Self::Step(StepLine {
            step: line.global_step,
            epoch: line.epoch,
            loss: line.loss,
            lr: line.lr,
            images_per_second: line.images_per_second,
            pretext_top1: line.pretext_top1,
            pretext_top5: line.pretext_top5,
            positive_cosine: line.positive_cosine,
            negative_cosine: line.negative_cosine,
            data_wait_percent: line.data_wait_percent,
            bad_samples: line.bad_samples,
            chance_loss: line.health.chance_loss,
            floor_loss: line.health.floor_loss,
            queue_filled_percent: match line.health.phase {
                Phase::Filling { percent } => percent,
                Phase::Learning => 100,
            },
            alarms: line.health.alarms.iter().map(|alarm| alarm.name()).collect(),
        })
    }

    pub(crate) fn stage(step: u64, line: &StageLine) -> Self {
        Self::Stage(StageRecord {
            step,
            stage: line.stage.clone(),
            items: line.items,
            busy_secs: line.busy_secs,
            waiting_in_secs: line.waiting_in_secs,
            waiting_out_secs: line.waiting_out_secs,
        })
    }
}
