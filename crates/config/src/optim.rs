//! The section `optim`: batch, learning rate, optimizer and warm-up.

use moco::MechanismKind;
use moco_optim::{LarsConfig, OptimizerConfig, Schedule, SgdConfig};
use moco_train::{Length, PretrainPlan};
use serde::Deserialize;

use crate::check::{at_least_one, momentum, not_negative};
use crate::complaint::Complaint;

/// `[optim]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawOptim {
    /// The optimizer.
    pub(crate) kind: RawOptimizer,
    /// Images in a step, over all devices.
    pub(crate) batch_size: usize,
    /// Learning rate for a batch of 256; the rate used is this times `batch_size` / 256.
    pub(crate) base_lr: f64,
    /// Momentum of the gradients.
    pub(crate) sgd_momentum: f64,
    /// L2 penalty on every parameter; of LARS, on all but biases and the weights of norms.
    pub(crate) weight_decay: f64,
    /// Epochs in which the rate rises to the schedule's first; 0 for no warm-up.
    pub(crate) warmup_epochs: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawOptimizer {
    Sgd,
    Lars,
}

/// The batch for which the papers state learning rates.
const BASE_BATCH: f64 = 256.0;

/// The contents of the section.
pub(crate) struct Optim {
    pub(crate) batch_size: usize,
    /// Scaled by the batch.
    pub(crate) lr: f64,
    pub(crate) optimizer: OptimizerConfig,
    /// 0 without a warm-up.
    warmup_epochs: u64,
}

/// Checks the section.
pub(crate) fn optim(raw: &RawOptim) -> Result<Optim, Complaint> {
    let RawOptim { kind, batch_size, base_lr, sgd_momentum, weight_decay, warmup_epochs } = *raw;
    at_least_one("optim.batch_size", batch_size as u64)?;
    // A rate of 0 is the control run with a frozen encoder.
    not_negative("optim.base_lr", base_lr)?;
    #[expect(clippy::cast_precision_loss, reason = "batches stay far below 2^53")]
    let lr = base_lr * batch_size as f64 / BASE_BATCH;
    let sgd_momentum = momentum("optim.sgd_momentum", sgd_momentum)?;
    let weight_decay = not_negative("optim.weight_decay", weight_decay)?;
    let optimizer = match kind {
        RawOptimizer::Sgd => OptimizerConfig::Sgd(SgdConfig { sgd_momentum, weight_decay }),
        RawOptimizer::Lars => OptimizerConfig::Lars(LarsConfig { sgd_momentum, weight_decay }),
    };
    Ok(Optim { batch_size, lr, optimizer, warmup_epochs })
}

impl Optim {
    /// The schedule after the warm-up.
    pub(crate) fn warmed_up(&self, then: Schedule, length: Length) -> Result<Schedule, Complaint> {
        let epochs = self.warmup_epochs;
        if epochs == 0 {
            return Ok(then);
        }
        if let Length::Epochs(all) = length
            && epochs >= all
        {
            let message =
                format!("optim.warmup_epochs must be less than run.epochs, got {epochs} and {all}");
            return Err(Complaint::value("optim.warmup_epochs", message).and("run.epochs"));
        }
        Ok(Schedule::Warmup { epochs, then: Box::new(then) })
    }
}

/// candle's operations, which LARS uses, and the end-to-end mechanism cannot be captured.
pub(crate) fn check_recordable(plan: &PretrainPlan) -> Result<(), Complaint> {
    if plan.cuda_graph && plan.moco.mechanism == MechanismKind::EndToEnd {
        let message = "run.cuda_graph must be false with moco.mechanism = \"end_to_end\", \
                       which runs on the CPU only";
        return Err(Complaint::value("run.cuda_graph", message).and("moco.mechanism"));
    }
    match plan.optimizer {
        OptimizerConfig::Lars(_) if plan.cuda_graph => {
            let message = "run.cuda_graph must be false with optim.kind = \"lars\", \
                           whose operations cannot be captured";
            Err(Complaint::value("run.cuda_graph", message).and("optim.kind"))
        }
        _ => Ok(()),
    }
}
