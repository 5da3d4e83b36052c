//! Whether batch norm gives the answer away (v1 A.9), by an experiment: the keys of a batch are encoded once as
//! training does it and once in other groups. What only the groups' statistics explain is gone the second time.

use candle_core::Tensor;
use moco_encoders::Mode;
use moco_ops::InfoNceStatistics;
use moco_rng::Seed;
use serde::Serialize;

use crate::batch::Batch;
use crate::encoder_with_head::EncoderWithHead;
use crate::error::MocoError;
use crate::shuffle::Shuffle;

/// The permutation of this measurement: no direction of the loss has that view.
const VIEW: u32 = 2;

/// Pretext accuracies of one batch, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Leak {
    /// With keys in the groups of training.
    pub top1_as_trained: f64,
    /// With keys in other groups.
    pub top1_in_other_groups: f64,
}

/// Measures with copies of both encoders, whose weights and running statistics stay as they are.
/// `as_trained` is the permutation of the step, if there is one; `statistics` compares queries and keys `[N, C]`.
pub(crate) fn top1_under(
    encoders: [&EncoderWithHead; 2],
    seed: Seed,
    global_step: u64,
    batch: &Batch,
    as_trained: Option<&Shuffle>,
    statistics: &dyn Fn(&Tensor, &Tensor) -> Result<InfoNceStatistics, MocoError>,
) -> Result<Leak, MocoError> {
    let [encoder_q, encoder_k] = encoders;
    let q = encoder_q.fork()?.encode(&batch.im_q, Mode::Train)?;
    let n = batch.im_k.dims()[0];
    let other = Shuffle::of_step(seed, global_step, VIEW, n)?.upload(batch.im_k.device())?;
    let top1 = |shuffle: Option<&Shuffle>| -> Result<f64, MocoError> {
        let mut encoder_k = encoder_k.fork()?;
        let k = match shuffle {
            Some(shuffle) => {
                shuffle.undo(&encoder_k.encode(&shuffle.apply(&batch.im_k)?, Mode::Train)?)?
            }
            None => encoder_k.encode(&batch.im_k, Mode::Train)?,
        };
        let ranks = statistics(&q, &k)?.positive_rank;
        let first = ranks.iter().filter(|rank| **rank == 0).count();
        Ok(100.0 * count(first) / count(ranks.len()))
    };
    Ok(Leak { top1_as_trained: top1(as_trained)?, top1_in_other_groups: top1(Some(&other))? })
}

#[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}
