//! The section `moco`: the constants of the method.

use moco::{MechanismKind, MocoConfig, QueuePrecision};
use serde::Deserialize;

use crate::check::{above_zero, at_least_one, within_zero_one};
use crate::complaint::Complaint;

/// `[moco]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section")]
pub(crate) struct RawMoco {
    /// The source of the negatives.
    pub(crate) mechanism: String,
    /// K, the number of negatives.
    pub(crate) queue_size: usize,
    /// m of Eq. (2).
    pub(crate) key_momentum: f64,
    /// τ of Eq. (1).
    pub(crate) temperature: f64,
    /// Width of the features that are compared.
    pub(crate) dim: usize,
    /// Whether each view serves as query and as key.
    pub(crate) symmetric: bool,
    /// Whether the keys are permuted before the key encoder.
    pub(crate) shuffle_bn: bool,
    /// How the queue stores keys.
    pub(crate) queue_precision: RawQueuePrecision,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawQueuePrecision {
    F32,
    Bf16,
}

/// Checks the section.
pub(crate) fn moco_plan(raw: &RawMoco) -> Result<MocoConfig, Complaint> {
    let RawMoco {
        mechanism,
        queue_size,
        key_momentum,
        temperature,
        dim,
        symmetric,
        shuffle_bn,
        queue_precision,
    } = raw;
    at_least_one("moco.queue_size", *queue_size as u64)?;
    at_least_one("moco.dim", *dim as u64)?;
    let mechanism = MechanismKind::named(mechanism).ok_or_else(|| {
        Complaint::unknown_name(
            "moco.mechanism",
            mechanism,
            &MechanismKind::NAMES.map(|(name, _)| name),
        )
    })?;
    Ok(MocoConfig {
        mechanism,
        queue_size: *queue_size,
        key_momentum: within_zero_one("moco.key_momentum", *key_momentum)?,
        temperature: above_zero("moco.temperature", *temperature)?,
        dim: *dim,
        symmetric: *symmetric,
        shuffle_bn: *shuffle_bn,
        queue_precision: match queue_precision {
            RawQueuePrecision::F32 => QueuePrecision::AsParameters,
            RawQueuePrecision::Bf16 => QueuePrecision::Bf16,
        },
    })
}
