//! Whole steps, queued one after the other without waiting for the device.

use candle_core::Device;
use moco::{Batch, Moco};

use super::args::Args;
use super::stepper::Stepper;
use super::timing::timed;

/// Measurements of whole steps.
#[derive(Debug)]
pub(super) struct Whole {
    /// Milliseconds of a step in each block.
    pub(super) blocks_ms: Vec<f64>,
    /// Of the first step of all and of the last.
    pub(super) losses: [f64; 2],
}

pub(super) fn measure(
    moco: &mut Moco,
    views: &Batch,
    device: &Device,
    args: &Args,
) -> anyhow::Result<Whole> {
    let mut stepper = Stepper::new(args);
    let first = stepper.step(moco, views)?;
    let mut last = first.clone();
    for _ in 1..args.warmup {
        stepper.step(moco, views)?;
    }
    let mut blocks_ms = Vec::new();
    for _ in 0..args.blocks {
        let ((), ms) = timed(device, || {
            for _ in 0..args.steps {
                last = stepper.step(moco, views)?;
            }
            Ok(())
        })?;
        blocks_ms.push(ms / f64::from(args.steps));
    }
    // Reading waits for the device.
    Ok(Whole { blocks_ms, losses: [first.read()?.loss, last.read()?.loss] })
}
