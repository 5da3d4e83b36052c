//! What a sample of the queue says: the spread of its features, their effective rank, and that of the logits.

use candle_core::{DType, Device};
use serde::Serialize;

use crate::error::{During, MocoError};
use crate::queue::Queue;

/// Keys that are looked at, in blocks spread evenly over the queue.
const N_BLOCKS: usize = 4;
const BLOCK: usize = 64;

/// Numbers of keys in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KeyNumbers {
    /// Mean over the channels of a key's standard deviation, times √dim (SimSiam, arXiv 2011.10566 §4.1): 1 where
    /// keys are spread evenly over the sphere, 0 where all are equal.
    pub feature_spread: f64,
    /// 1 / E cos² over pairs of keys: the participation ratio (tr C)² / tr C² of their second moments C, which is
    /// the exponential of Rényi's entropy of order 2 of its eigenvalues, where RankMe (arXiv 2210.02885) and the
    /// effective rank of Roy and Vetterli (EUSIPCO 2007) have Shannon's. `dim` where keys are spread evenly over
    /// the sphere, 1 where all lie on a line.
    pub effective_rank: f64,
    /// Standard deviation of a key's logits, its cosines to the other keys by τ.
    pub logit_spread: f64,
}

impl KeyNumbers {
    pub(super) fn of(queue: &Queue, temperature: f64) -> Result<Self, MocoError> {
        let keys = sample(queue)?;
        let n = count(keys.len());
        let dim = keys.first().map_or(0, Vec::len);
        let spread_of = |channel: usize| {
            let mean = keys.iter().map(|key| key[channel]).sum::<f64>() / n;
            (keys.iter().map(|key| (key[channel] - mean).powi(2)).sum::<f64>() / n).sqrt()
        };
        let feature_spread = (0..dim).map(spread_of).sum::<f64>() / count(dim).sqrt();
        let (mut squares, mut logit_spread) = (0.0, 0.0);
        for (i, key) in keys.iter().enumerate() {
            let others = keys.iter().enumerate().filter(|(j, _)| *j != i);
            let cosines: Vec<f64> = others.map(|(_, other)| dot(key, other)).collect();
            let (n_others, sum) = (count(cosines.len()), cosines.iter().sum::<f64>());
            let square = cosines.iter().map(|x| x * x).sum::<f64>() / n_others;
            squares += square / n;
            logit_spread += (square - (sum / n_others).powi(2)).max(0.0).sqrt() / temperature / n;
        }
        Ok(Self { feature_spread, effective_rank: 1.0 / squares, logit_spread })
    }
}

/// Some keys of the queue, one a row.
fn sample(queue: &Queue) -> Result<Vec<Vec<f64>>, MocoError> {
    let keys = queue.keys().to_device(&Device::Cpu).during("looking at the queue")?; // [C, K]
    let size = queue.size();
    let block = BLOCK.min(size.div_ceil(N_BLOCKS));
    let mut rows = Vec::new();
    for i in 0..N_BLOCKS {
        let first = (i * size / N_BLOCKS).min(size - block);
        let block =
            keys.narrow(1, first, block).and_then(|x| x.t()?.to_dtype(DType::F64)?.to_vec2());
        rows.extend(block.during("looking at the queue")?);
    }
    Ok(rows)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[expect(clippy::cast_precision_loss, reason = "queue sizes stay far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use moco_rng::Seed;

    use super::*;

    #[test]
    fn random_keys_are_spread_and_equal_ones_are_not() {
        let queue = Queue::random(Seed(0), 32, 4096, DType::F32).unwrap();
        let numbers = KeyNumbers::of(&queue, 0.2).unwrap();
        assert!((numbers.feature_spread - 1.0).abs() < 0.01, "{numbers:?}");
        assert!((numbers.effective_rank - 32.0).abs() < 1.0, "{numbers:?}");
        // The standard deviation of a cosine is 1/√32.
        assert!((numbers.logit_spread - 5.0 / 32.0_f64.sqrt()).abs() < 0.02, "{numbers:?}");
        let equal = Tensor::new(&[[1.0_f32; 8], [0.0; 8]], &Device::Cpu).unwrap();
        let numbers = KeyNumbers::of(&Queue::from_parts(&equal, 0).unwrap(), 0.2).unwrap();
        let expected = KeyNumbers { feature_spread: 0.0, effective_rank: 1.0, logit_spread: 0.0 };
        assert_eq!(numbers, expected);
    }

    /// Four keys: two of one direction, two of another at a right angle.
    #[test]
    fn the_numbers_are_those_computed_by_hand() {
        let keys = Tensor::new(&[[1.0_f64, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], &Device::Cpu);
        let queue = Queue::from_parts(&keys.unwrap(), 0).unwrap();
        let numbers = KeyNumbers::of(&queue, 0.5).unwrap();
        // Each channel is 1 in half of the keys; each key has the cosines 1, 0 and 0.
        assert!((numbers.feature_spread - 0.5 * 2.0_f64.sqrt()).abs() < 1e-12);
        assert!((numbers.effective_rank - 3.0).abs() < 1e-12);
        assert!((numbers.logit_spread - 2.0 * (1.0 / 3.0 - 1.0 / 9.0_f64).sqrt()).abs() < 1e-12);
    }
}
